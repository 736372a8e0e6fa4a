"""Tasks: LightningModules for training a teacher, distilling a surrogate, and probing frozen features."""
