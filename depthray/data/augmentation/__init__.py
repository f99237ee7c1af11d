"""Random changes of training samples: what is drawn, and how frames are shown by it, on the CPU or a device."""
