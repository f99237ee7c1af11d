"""The HTTP interface: routes, request parsing, encodings, errors."""
