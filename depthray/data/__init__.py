"""From files to batches: encodings, sources, splits, shards, augmentation and loading."""
