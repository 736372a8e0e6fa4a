"""Means with intervals of what was measured, as tables and as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binomtest

from raptor.analysis.jumps import rivals, speed_jump
from raptor.models.tokens import TOKEN_TYPES
from raptor.reporting.statistics import MeanCI
from raptor.studies.dynamics.findings import UNKICKED, Arrays, with_own_cut


def mean_and_interval(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean over the first axis and half width of its 95 % Student interval, for ``(n, m)``."""
    spreads = [MeanCI.of(column) for column in values.T]
    return np.array([s.mean for s in spreads]), np.array([s.ci95 for s in spreads])


def share_and_interval(
    values: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Share over the first axis and the ends of its 95 % Wilson interval, for ``(n, m)`` from 0 to 1."""
    n = len(values)
    intervals = [binomtest(round(ones), n).proportion_ci(method="wilson") for ones in values.sum(axis=0)]
    return values.mean(axis=0), np.array([i.low for i in intervals]), np.array([i.high for i in intervals])


def findings_table(findings: list[dict[str, Any]]) -> pd.DataFrame:
    """Findings as a table, a row each and a column for each network."""
    networks = list(dict.fromkeys(name for row in findings for name in row["values"]))

    def cell(row: dict[str, Any], name: str) -> str:
        value = row["values"].get(name)
        return f"{value['mean']:.{row['digits']}f} ± {value['ci95']:.{row['digits']}f}" if value else "-"

    return pd.DataFrame(
        [
            {
                "finding": row["finding"],
                "tokens": row["tokens"],
                "statistic (above 0: it shows)": row["statistic"],
                **{name: cell(row, name) for name in networks},
                "verdict": row["verdict"],
            }
            for row in findings
        ]
    )


def errors_table(networks: Mapping[str, Arrays]) -> pd.DataFrame:
    """Measured eps of surrogates relative to the teacher's layer: largest mean over layers, and last layer."""
    rows = []
    for name, arrays in networks.items():
        for which, label in (("surrogate", name), ("held", "start of the phase, held")):
            for measure in ("relative", *(f"relative_{kind}" for kind in TOKEN_TYPES)):
                values = arrays.get(f"hypothesis/{which}/{measure}")
                if values is None:
                    continue
                mean, ci95 = mean_and_interval(values)
                worst = int(mean.argmax())
                tokens = measure.removeprefix("relative").removeprefix("_") or "all"
                cells = [f"{mean[i]:.3f} ± {ci95[i]:.3f}" for i in (worst, -1)]
                rows.append(
                    {"layers of": label, "tokens": tokens, "largest": cells[0], "at layer": worst, "last": cells[1]}
                )
    return pd.DataFrame(rows)


def jumps_table(networks: Mapping[str, Arrays], given: bool) -> pd.DataFrame:
    """Speed jump at the phase boundaries, and how many other partitions into as many phases have one as large."""
    rows = []
    for name, arrays in networks.items():
        cut = arrays if given else with_own_cut(name, arrays)
        boundaries = cut["boundaries"].tolist()
        for kind in TOKEN_TYPES:
            speed = arrays.get(f"curves/speed/{kind}")
            jump = None if speed is None else speed_jump(speed, boundaries)
            if speed is None or jump is None:
                continue
            spread, (larger, others) = MeanCI.of(np.degrees(jump).tolist()), rivals(speed, boundaries)
            rows.append(
                {"network": name, "tokens": kind, "boundaries": ", ".join(map(str, boundaries))}
                | {"jump (degrees)": f"{spread.mean:.2f} ± {spread.ci95:.2f}"}
                | {"other partitions with one as large": f"{larger:,} of {others:,}"}
            )
    return pd.DataFrame(rows)


def kicked(arrays: Arrays, key: str) -> NDArray[np.float64]:
    """Angles after a kick ``(n, layers)``, of the images that it moved."""
    way = key.partition("/")[2]
    return arrays[key][arrays[f"kicks/{way}"][:, 0] > UNKICKED]


def rates(arrays: Arrays) -> list[dict[str, Any]]:
    """How kicks shrink or grow: factor for each layer of depth, with interval, for every kick."""
    import torch

    from raptor.analysis.perturbation import contraction_rate

    rows = []
    for key in sorted(arrays):
        if not key.startswith("kicks/") or not len(kicked(arrays, key)):
            continue
        _, way, layer, size, kind = key.split("/")
        carried = torch.from_numpy(kicked(arrays, key.replace("kicks/", "carried/")))
        spread = MeanCI.of(contraction_rate(torch.from_numpy(kicked(arrays, key))).tolist())
        rows.append(
            {"toward": way, "layer": int(layer), "size": float(size), "tokens": kind, "rate": spread.mean}
            | {"ci95": spread.ci95, "n": spread.n, "carried": float(contraction_rate(carried).mean())}
        )
    return sorted(rows, key=lambda row: (row["toward"], row["layer"], row["size"], row["tokens"]))


def rates_table(networks: Mapping[str, Arrays]) -> pd.DataFrame:
    """How kicks shrink or grow, a row for each kick and a column for each network."""
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for name, arrays in networks.items():
        for row in rates(arrays):
            first = {
                "tokens": row["tokens"],
                "toward": row["toward"],
                "kicked layer": row["layer"],
                "size": row["size"],
            }
            cell = f"{row['rate']:.3f} ± {row['ci95']:.3f} ({row['carried']:.3f})"
            rows.setdefault(tuple(first.values()), first)[name] = cell
    table = pd.DataFrame([rows[key] for key in sorted(rows)])
    return table.replace({"toward": {"class": "another class"}}).fillna("-") if len(table) else table


def summary(arrays: Arrays) -> dict[str, Any]:
    """All numbers of a network as plain data: curves as means with intervals, the rest as it is."""
    found: dict[str, Any] = {"rates": rates(arrays)}
    for key, values in arrays.items():
        if key.startswith(
            ("curves/", "basins/own", "basins/final", "basins/class_mean", "hypothesis/", "kicks/", "carried/")
        ):
            mean, ci95 = mean_and_interval(values)
            found[key] = {"mean": mean.tolist(), "ci95": ci95.tolist(), "n": len(values)}
        elif (
            key.startswith(("other_end/", "pooled/"))
            or key.endswith("_error")
            or key in ("basins/chance", "basins/classes")
        ):
            found[key] = values.tolist()
        elif key.startswith(("jacobian/", "operators/")):
            found[key] = np.abs(values).tolist() if np.iscomplexobj(values) else values.tolist()
    return found
