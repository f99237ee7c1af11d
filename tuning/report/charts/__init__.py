"""Charts of a search: plain values -> SVG text. Colours are classes that the page around them gives a meaning."""
