"""A run's folder: training into it, reading it, copying it to and from object stores."""
