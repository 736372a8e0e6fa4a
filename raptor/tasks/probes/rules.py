"""The rules by which a step and a learning rate of a probe are selected.

:mod:`raptor.tasks.probes.selection` acts on them.
"""

RULES = {
    "last": "last step, nothing selected",
    "official": "best epoch on the validation images",
    "held_out": "best epoch on a held-out tenth of the training images",
}
