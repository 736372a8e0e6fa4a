"""Files, seeds, signals, processes: what everything else builds on."""
