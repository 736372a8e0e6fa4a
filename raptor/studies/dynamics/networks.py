"""Networks to be compared: a teacher, its surrogates, and one of its shape with random weights."""

from __future__ import annotations

from collections.abc import Sequence

from raptor.errors import ConfigError
from raptor.models.backbone import Backbone
from raptor.models.load import load
from raptor.models.options import TeacherNode
from raptor.models.surrogate import Surrogate
from raptor.models.teacher import Teacher, freeze


def networks_of(node: TeacherNode, surrogates: Sequence[str], *, untrained: bool) -> dict[str, Backbone]:
    """Frozen networks by the names that figures give them, the teacher first.

    Parameters
    ----------
    node
        Options of the teacher.
    surrogates
        Run folders or Hub names of surrogates of it.
    untrained
        Whether to add a network of its shape with random weights, if it is trained itself.

    Raises
    ------
    ConfigError
        If a source is no surrogate of as many layers.
    """
    teacher: Teacher = freeze(node.build())
    networks: dict[str, Backbone] = {"teacher" if teacher.trained else "random weights": teacher}
    without = None
    if untrained and teacher.trained:  # drawn before anything that draws, so that it is the same beside any surrogates
        random = {"weights": None, "pretrained": False, "head": None}
        without = freeze(node.build(**random))
    for source in surrogates:
        model = load(source)
        if not isinstance(model, Surrogate) or model.num_layers != teacher.num_layers:
            fix = "name run folders of task=finetune on this teacher"
            raise ConfigError.of("surrogates", source, f"a surrogate of {teacher.num_layers} layers", fix)
        label = f"k={model.k}"
        same = sum(name.split(" ")[0] == label for name in networks)
        networks[label if not same else f"{label} ({same + 1})"] = freeze(model.at_resolution_of(teacher))
    return networks | ({"untrained": without} if without is not None else {})
