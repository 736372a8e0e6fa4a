"""Studies: each a wing of its own with task, statistics, figures and page."""
