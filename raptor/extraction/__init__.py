"""Extraction: what of the images or the teacher's layers goes to disk, and writing it."""
