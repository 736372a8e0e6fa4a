"""Measure speed and memory against stated baselines in the same run: ``python -m benchmarks``."""
