"""HDF5 shards: format, writing, reading from object stores."""
