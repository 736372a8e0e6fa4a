"""Options of data and of the sources of activations."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from raptor.utils.options import Choice

if TYPE_CHECKING:
    from raptor.data.module import ImageData
    from raptor.data.sources import ActivationSource


class DataNode(Choice):
    """A data set: ``data=digits|image_folder|...``, or a user's own by ``_target_``."""

    @abstractmethod
    def build(self, **changes: Any) -> ImageData:
        """Build the data set, with some keys changed."""


class SourceNode(Choice):
    """A source of the teacher's layers: ``activations=online|cached``."""

    @abstractmethod
    def build(self) -> ActivationSource:
        """Build the source."""
