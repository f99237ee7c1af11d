"""What a report shows of a study: words, charts, pictures, tables; `tuning.report` puts them on a page."""
