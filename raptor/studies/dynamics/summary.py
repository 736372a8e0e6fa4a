"""Summarise what was measured as means with intervals: tables and plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binomtest

from raptor.analysis.jumps import permutation_test, speed_jump
from raptor.models.token_types import TOKEN_TYPES
from raptor.reporting.statistics import MeanCI
from raptor.studies.dynamics.findings import with_own_cut
from raptor.studies.dynamics.rules import UNMOVED, Arrays


def mean_and_interval(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute the mean over the first axis and the half width of its 95 % Student interval, for ``(n, m)``."""
    intervals = [MeanCI.of(column) for column in values.T]
    return np.array([s.mean for s in intervals]), np.array([s.ci95 for s in intervals])


def share_and_interval(
    values: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Compute the share over the first axis and the ends of its 95 % Wilson interval, for ``(n, m)`` from 0 to 1."""
    n = len(values)
    intervals = [binomtest(round(ones), n).proportion_ci(method="wilson") for ones in values.sum(axis=0)]
    return values.mean(axis=0), np.array([i.low for i in intervals]), np.array([i.high for i in intervals])


def findings_table(findings: list[dict[str, Any]]) -> pd.DataFrame:
    """Build a table with a row for each finding and a column for each network."""
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
    """Tabulate the eps of surrogates relative to the teacher's layer: largest mean over layers, and last layer."""
    rows = []
    for name, arrays in networks.items():
        for which, label in (("surrogate", name), ("hold_phase_start", "start of the phase, held")):
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


def jumps_table(networks: Mapping[str, Arrays], *, given: bool) -> pd.DataFrame:
    """Tabulate the speed jump at the phase boundaries, with the permutation test among other partitions."""
    rows = []
    for name, arrays in networks.items():
        cut = arrays if given else with_own_cut(name, arrays)
        boundaries = cut["boundaries"].tolist()
        for kind in TOKEN_TYPES:
            speed = arrays.get(f"curves/speed/{kind}")
            jump = None if speed is None else speed_jump(speed, boundaries)
            if speed is None or jump is None:
                continue
            interval = MeanCI.of(np.degrees(jump).tolist())
            rows.append(
                {"network": name, "tokens": kind, "boundaries": ", ".join(map(str, boundaries))}
                | {"jump (degrees)": f"{interval.mean:.2f} ± {interval.ci95:.2f}"}
                | {"p among contiguous partitions": f"{permutation_test(speed, boundaries):.3f}"}
            )
    return pd.DataFrame(rows)


def moved(arrays: Arrays, key: str) -> NDArray[np.float64]:
    """Select the angles after a perturbation ``(n, layers)``, of the images that it moved."""
    way = key.partition("/")[2]
    return arrays[key][arrays[f"perturbed/{way}"][:, 0] > UNMOVED]


def rates(arrays: Arrays) -> list[dict[str, Any]]:
    """Compute how perturbations shrink or grow: factor for each layer of depth, with interval, for each of them."""
    import torch

    from raptor.analysis.perturbation import contraction_rate

    rows = []
    for key in sorted(arrays):
        if not key.startswith("perturbed/") or not len(moved(arrays, key)):
            continue
        _, way, layer, size, kind = key.split("/")
        offset = torch.from_numpy(moved(arrays, key.replace("perturbed/", "constant_offset/")))
        interval = MeanCI.of(contraction_rate(torch.from_numpy(moved(arrays, key))).tolist())
        rows.append(
            {"toward": way, "layer": int(layer), "size": float(size), "tokens": kind, "rate": interval.mean}
            | {"ci95": interval.ci95, "n": interval.n, "constant_offset": float(contraction_rate(offset).mean())}
        )
    return sorted(rows, key=lambda row: (row["toward"], row["layer"], row["size"], row["tokens"]))


def rates_table(networks: Mapping[str, Arrays]) -> pd.DataFrame:
    """Tabulate how perturbations shrink or grow, a row for each of them and a column for each network."""
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for name, arrays in networks.items():
        for row in rates(arrays):
            first = {
                "tokens": row["tokens"],
                "toward": row["toward"],
                "perturbed layer": row["layer"],
                "size": row["size"],
            }
            cell = f"{row['rate']:.3f} ± {row['ci95']:.3f} ({row['constant_offset']:.3f})"
            rows.setdefault(tuple(first.values()), first)[name] = cell
    table = pd.DataFrame([rows[key] for key in sorted(rows)])
    return table.replace({"toward": {"class": "another class"}}).fillna("-") if len(table) else table


def multistep_table(networks: Mapping[str, Arrays]) -> pd.DataFrame:
    """Tabulate errors of operators over several steps, a row for each network, token type and phase."""
    rows = []
    for name, arrays in networks.items():
        for key in arrays:
            if key.startswith("multistep/") and key.endswith("/horizon"):
                _, phase, kind, _ = key.split("/")
                errors = {
                    title: f"{float(arrays[f'multistep/{phase}/{kind}/{error}_error']):.3g}"
                    for error, title in MULTISTEP.items()
                }
                rows.append({"network": name, "tokens": kind, "phase": phase, "steps": int(arrays[key]), **errors})
    return pd.DataFrame(rows)


MULTISTEP = {
    "power": "operator, step by step",
    "endpoint": "map fitted to these two layers",
    "identity": "no change",
    "mean": "constant mean",
}


def rollout_table(networks: Mapping[str, Arrays]) -> pd.DataFrame:
    """Tabulate how well the surrogate that operators make follows its network, beside layer 0 unchanged."""
    rows = []
    for name, arrays in networks.items():
        row: dict[str, Any] = {"network": name}
        for which, title in (("linear", "operators"), ("identity", "layer 0 unchanged")):
            for kind in TOKEN_TYPES:
                if (values := arrays.get(f"rollout/{which}/{kind}")) is not None:
                    row[f"cosine {kind}: {title}"] = _interval(values[:, -1])
            if (agrees := arrays.get(f"agreement/{which}")) is not None:
                row[f"agreement: {title}"] = _interval(agrees)
        if "agreement/chance" in arrays:
            row["most frequent class"] = f"{float(arrays['agreement/chance']):.3f}"
        if len(row) > 1:
            rows.append(row)
    return pd.DataFrame(rows).fillna("-") if rows else pd.DataFrame()


def _interval(values: NDArray[np.float64]) -> str:
    interval = MeanCI.of(values.tolist())
    return f"{interval.mean:.3f} ± {interval.ci95:.3f}"


PER_IMAGE = (
    "curves/",
    "basins/own",
    "basins/final",
    "basins/class_mean",
    "hypothesis/",
    "perturbed/",
    "constant_offset/",
    "rollout/",
)


def summary(arrays: Arrays) -> dict[str, Any]:
    """Give all numbers of a network as plain data: curves as means with intervals, the rest as it is.

    Complex numbers are ``{"real": ..., "imag": ...}``; releases before 0.2 kept their modulus alone.
    """
    numbers: dict[str, Any] = {"rates": rates(arrays)}
    for key, values in arrays.items():
        if key.startswith(PER_IMAGE):
            mean, ci95 = mean_and_interval(values)
            numbers[key] = {"mean": mean.tolist(), "ci95": ci95.tolist(), "n": len(values)}
        elif key.startswith("agreement/") and values.ndim:
            interval = MeanCI.of(values.tolist())
            numbers[key] = {"mean": interval.mean, "ci95": interval.ci95, "n": interval.n}
        elif np.iscomplexobj(values):
            numbers[key] = {"real": values.real.tolist(), "imag": values.imag.tolist()}
        elif not key.startswith("shown/") and key != "labels":
            numbers[key] = values.tolist()
    return numbers
