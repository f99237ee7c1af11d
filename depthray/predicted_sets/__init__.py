"""The depth of every frame of a data set, in parts that any number of workers predicts."""
