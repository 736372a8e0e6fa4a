"""What the processes of the parts have imported before they are forked."""

import importlib

for name in (
    *("benchmarks.feed", "benchmarks.memory", "benchmarks.probes", "raptor.dynamics", "raptor.extract"),
    *("raptor.studies.dynamics.page", "raptor.tasks.probes.build", "raptor.training.fit", "raptor.training.trainer"),
):
    importlib.import_module(name)
