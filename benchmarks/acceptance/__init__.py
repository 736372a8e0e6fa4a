"""Acceptance of a machine with a GPU: ``python -m benchmarks.acceptance``, or ``make gpu``."""
