"""Partition of depth: layer distance, max-cut into contiguous phases, quality measures."""
