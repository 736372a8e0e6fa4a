"""Data: datasets, samplers and Lightning datamodules."""
