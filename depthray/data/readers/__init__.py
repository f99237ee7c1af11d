"""Readers that several forms of data sets share."""
