"""What several architectures share, and those of your own may: inputs, encoders, transformer, blocks, weights."""
