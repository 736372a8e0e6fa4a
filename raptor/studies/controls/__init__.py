"""Tied blocks beside rivals with as many parameters, images and the same loss."""
