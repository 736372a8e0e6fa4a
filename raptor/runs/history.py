"""The metrics of a run over its steps, put together from all its attempts."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

METRICS = "metrics"


def read_metrics(folder: Path) -> pd.DataFrame:
    """Metrics of all attempts of a run, indexed by step.

    A resumed run repeats the steps since its last checkpoint; the later attempt counts.

    Parameters
    ----------
    folder
        Run folder; each attempt's CSV logger wrote ``metrics/version_N/metrics.csv`` there.

    Returns
    -------
    DataFrame
        One row for each step with a metric, one column for each metric.
    """
    files = sorted((folder / METRICS).glob("version_*/metrics.csv"), key=lambda p: int(p.parent.name.split("_")[1]))
    frames = [pd.read_csv(file) for file in files if file.stat().st_size]
    if not frames:
        return pd.DataFrame(index=pd.Index([], name="step"))
    return pd.concat(frames).drop(columns="epoch", errors="ignore").groupby("step").last().sort_index()


def curves(metrics: pd.DataFrame, points: int = 200) -> dict[str, list[list[float]]]:
    """Each metric as ``[[step, value], ...]`` with at most ``points`` entries, evenly thinned."""
    found = {}
    for name in metrics.columns:
        series = metrics[name].dropna()
        thin = series.iloc[:: max(1, -(-len(series) // points))]
        found[str(name)] = [[int(step), float(value)] for step, value in thin.items()]  # type: ignore[call-overload]
    return found
