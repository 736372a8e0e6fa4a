"""The existence proof: what can be read off each layer of a surrogate of a published teacher, and its page."""
