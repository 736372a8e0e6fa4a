"""Running many jobs elsewhere: on SLURM, or as processes on this machine."""
