"""Charts of a search: plain values -> SVG text. Colours are CSS classes that the page defines."""
