"""The types of tokens in their order, where neither torch nor a model is needed."""

TOKEN_TYPES = ("cls", "registers", "patches")
