"""Readers that several data set forms share."""
