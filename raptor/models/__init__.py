"""Models: token layout, recurrent block, surrogate, teacher, heads, and their files."""
