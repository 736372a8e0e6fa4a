"""Options of ``python -m raptor.report`` and ``python -m raptor.reproduce``."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from raptor.runs.options import RunOptions
from raptor.utils.options import option, options


@options
class ReportOptions(RunOptions):
    """Tables, figures and a page of one study."""

    command: ClassVar[str] = "report"

    study: str | int | float | None = option(  # type: ignore[assignment]
        "Study in <paths.runs>; null takes the one whose run ended last", default=None, identity=False
    )
    output: str | None = option("Folder of the report; null takes report/ in the study", default=None, identity=False)
    table: dict[str, Any] | None = option("Backbones against data sets: rows, columns, runs", default=None, open=True)
    analysis: Literal["small_scale", "dynamics", "controls"] | None = option(
        "Report of a study of its own kind", default=None
    )
    stages: list[str] = option("What raptor.reproduce runs before", default=[], identity=False)
    train: list[str] = option("Overrides for every training of raptor.reproduce", default=[], identity=False)
    title: str | None = option("Heading of the page; null makes one", default=None, identity=False)


@options
class ReproduceOptions(ReportOptions):
    """All stages of a study, then its report."""

    command: ClassVar[str] = "reproduce"
