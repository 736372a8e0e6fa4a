"""Distillation: blocks and surrogates that follow a teacher."""
