"""Exported models: their folders, and the runtimes that compute them in place of PyTorch's eager mode."""
