"""What is predicted beside depth: how sure the network is of it, and where there is none."""
