"""The report of a search: a page, Markdown, JSON and CSV."""
