"""The teacher of a surrogate, as the run of the surrogate names it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from omegaconf import OmegaConf

from raptor.errors import ConfigError
from raptor.models.options import TeacherNode
from raptor.runs.migration import CONFIG, upgrade
from raptor.utils.files import CONFIGS, resolve
from raptor.utils.options import option, options, parse

if TYPE_CHECKING:
    from raptor.models.teacher import Teacher

DEFAULT = CONFIGS / "teacher" / "digits_vit.yaml"


@options
class SurrogateTeacherOptions(TeacherNode):
    """The teacher that a run names, or the digits ViT."""

    identity_name: ClassVar[str] = "auto"

    run: str | None = option("Run folder of a surrogate; null takes the digits ViT", default=None)

    def resolve(self) -> TeacherNode:
        """Return the options of the teacher itself.

        Raises
        ------
        ConfigError
            If the run has no configuration with a teacher.
        """
        path = DEFAULT if self.run is None else resolve(self.run) / CONFIG
        if not path.is_file():
            expected = f"a run folder with {CONFIG}, which names the teacher"
            raise ConfigError.of("surrogates", self.run, expected, "name the teacher by teacher=...")
        values: Any = OmegaConf.to_container(OmegaConf.load(path))
        node = values if self.run is None else upgrade(values).get("teacher")
        return parse(TeacherNode, node, "teacher")  # type: ignore[type-abstract]

    def build(self, **changes: Any) -> Teacher:
        """Build the teacher."""
        return self.resolve().build(**changes)
