"""Architectures: one family a file, the layers that they share, how fresh weights are drawn, and the registry."""
