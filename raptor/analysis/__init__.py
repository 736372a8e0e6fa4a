"""How tokens move through depth: measures on trajectories, each a pure function or a sum that streams over batches.

A trajectory is the sequence of layers 0..L of one image, each ``(N, D)``, before the final norm. Since norms keep
growing with depth, motion is looked at on the unit sphere: x^ = x / |x| (paper, section on dynamical interpretability).
"""
