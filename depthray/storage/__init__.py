"""Files on disk and on object stores: atomic writes, retries, a cache."""
