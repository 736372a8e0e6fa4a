"""Samples on disk as raw shards: the format of pixel caches and activation stores."""
