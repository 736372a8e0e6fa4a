"""Runs: folder, identity, provenance and status of each, and what a study has finished."""
