"""Command line: the entry point of all commands, and the jobs of a sweep."""
