"""Scale and shift of a network's depth on frames of one's own, and whether they help on frames that were held out."""
