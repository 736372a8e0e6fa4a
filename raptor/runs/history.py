"""Metrics of a run by step, over all its attempts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

METRICS, JOURNAL, STEP = "metrics", "metrics.jsonl", "step"


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a journal, one JSON object a line; a last line that was cut off is left out."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def read_metrics(folder: Path) -> pd.DataFrame:
    """Read the metrics of all attempts of a run, indexed by step.

    Parameters
    ----------
    folder
        Run folder with ``metrics/metrics.jsonl``. Earlier releases wrote ``metrics/version_N/metrics.csv`` in attempt
        N, which repeats the steps since the last checkpoint; the later attempt counts.

    Returns
    -------
    DataFrame
        One row for each step with a metric, one column for each metric.
    """
    files = sorted((folder / METRICS).glob("version_*/metrics.csv"), key=lambda p: int(p.parent.name.split("_")[1]))
    frames = [pd.read_csv(file) for file in files if file.stat().st_size]
    frames += [pd.DataFrame(rows)] if (rows := read_rows(folder / METRICS / JOURNAL)) else []
    if not frames:
        return pd.DataFrame(index=pd.Index([], name=STEP))
    return pd.concat(frames).drop(columns="epoch", errors="ignore").groupby(STEP).last().sort_index()


def curves(metrics: pd.DataFrame, points: int = 200) -> dict[str, list[list[float]]]:
    """Each metric as ``[[step, value], ...]`` with at most ``points`` entries, evenly thinned."""
    series_by_name = {}
    for name in metrics.columns:
        series = metrics[name].dropna()
        thin = series.iloc[:: max(1, -(-len(series) // points))]
        series_by_name[str(name)] = [[int(step), float(value)] for step, value in thin.items()]  # type: ignore[call-overload]
    return series_by_name
