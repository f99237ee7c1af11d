"""What completes sparse depth in a depth head: samples that join late, their fill, and refinement."""
