"""Money moves here and nowhere else."""
