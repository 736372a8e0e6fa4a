"""Names of the distances between layers, without torch: reports and the check of options need no more."""

LABELS = {
    "cosine": "1 - cosine",
    "centred": "1 - centred cosine",
    "mse": "mean squared difference",
    "cka": "1 - CKA",
}  # what figures call them
MEASURES = tuple(LABELS)
