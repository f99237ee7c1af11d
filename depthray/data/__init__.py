"""From files to batches: encodings, sources, splits, shards, augmentation, loading, and what `depthray data` does."""
