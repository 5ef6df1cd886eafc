"""Structured pruning: groups of coupled channels, their importance, how many go, and the cut itself."""
