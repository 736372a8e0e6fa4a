"""Training: Lightning's trainer, callbacks, schedules and loggers."""
