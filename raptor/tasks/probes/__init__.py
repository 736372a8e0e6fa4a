"""Probes: heads on frozen features."""
