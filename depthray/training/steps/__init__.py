"""Parts of an optimiser step that never wait for the device: batches, loss, undoing, numbers on their way back."""
