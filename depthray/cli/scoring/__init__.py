"""Commands that hold checkpoints against measured depth to decide: which is better, and by what its metres are off."""
