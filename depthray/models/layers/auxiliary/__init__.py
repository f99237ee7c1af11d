"""What is predicted along with depth: how sure the network is of it, and where there is none."""
