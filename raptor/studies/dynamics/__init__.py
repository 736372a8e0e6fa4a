"""The study of dynamics: how tokens move through depth."""
