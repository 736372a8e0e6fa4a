"""Options of ``python -m raptor.report`` and ``python -m raptor.reproduce``."""

from __future__ import annotations

from typing import ClassVar, Literal

from raptor.runs.options import RunOptions
from raptor.utils.options import option, options


@options
class ColumnOptions:
    """One column of a table: a number of its runs."""

    title: str = option("Heading, with the unit")
    metric: str = option("Its name in result.json")
    scale: float = option("Factor to the unit of the heading", default=1.0)
    digits: int = option("Decimals", default=1, ge=0)
    higher_is_better: bool = option("Whether more is better", default=True)


@options
class RowOptions:
    """One row of a table: a backbone."""

    title: str = option("Its name")
    runs: str = option("Pattern of what stands for {row} in the names of its runs; * is anything")
    seeds: int = option("Number of runs that a full cell has", ge=1)
    published: dict[str, list[float]] = option(
        "By column: the published mean, or mean and standard deviation, in the column's unit", default={}, open=True
    )
    line: bool = option("Whether figures draw it as a line, to compare bars with", default=False)


@options
class TableOptions:
    """Backbones against data sets, such as the paper's Table 1."""

    runs: str = option("Name of a cell's runs, with {row} and {column}")
    rows: dict[str, RowOptions] = option("Backbones, by key")
    columns: dict[str, ColumnOptions] = option("Numbers, by key")
    selection: str = option("Rule of selection whose numbers are shown", default="official")
    reference: str | None = option("Key of the row that shares refer to; null leaves shares out", default=None)
    source: str = option("Where published figures come from", default="")
    title: str = option("Heading", default="Table")


@options
class ReportOptions(RunOptions):
    """Tables, figures and a page of one study."""

    command: ClassVar[str] = "report"

    study: str | int | float | None = option(  # type: ignore[assignment]
        "Study in <paths.runs>; null takes the one whose run ended last", default=None, identity=False
    )
    output: str | None = option("Folder of the report; null takes report/ in the study", default=None, identity=False)
    table: TableOptions | None = option("Backbones against data sets: rows, columns, runs", default=None)
    analysis: Literal["small_scale", "dynamics", "controls", "proof"] | None = option(
        "Report of a study of its own kind", default=None
    )
    stages: list[str] = option("What raptor.reproduce runs before", default=[], identity=False)
    train: list[str] = option("Overrides for every training of raptor.reproduce", default=[], identity=False)
    title: str | None = option("Heading of the page; null makes one", default=None, identity=False)


@options
class ReproduceOptions(ReportOptions):
    """All stages of a study, then its report."""

    command: ClassVar[str] = "reproduce"
