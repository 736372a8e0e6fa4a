"""Rates of the cost model as an acceptance measured them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.step import VIT_B, VIT_L
from benchmarks.table1 import Given
from raptor.errors import ConfigError
from raptor.utils.files import read_json

ROOT = Path(__file__).parents[1]
PLACES = (Path("build/acceptance/acceptance.json"), ROOT / "docs" / "results" / "acceptance.json")
FIX = "give an acceptance.json that make gpu wrote on a machine with a GPU"
STAGES = {"blocks": "stage 1", "surrogates": "stage 2"}


def with_measured(values: Mapping[str, Any]) -> Given:
    """Complete the keys of a command line by measured rates, where there are some; keys that are given stay.

    Raises
    ------
    ConfigError
        If ``measured`` names a file without them.
    """
    file = values.get("measured")
    found = None
    if file is not None:
        found = read_acceptance(Path(file))
        if found is None:
            raise ConfigError.of("measured", file, "the measurements of a GPU, at full size", FIX)
    else:
        file, found = next(((str(p), f) for p in PLACES if (f := read_acceptance(p))), (None, None))
    if found is None:
        return Given(**values)
    measured: dict[str, Any] = {"measured": str(file)}
    if "tflops" not in values:
        rates = rates_of(found, values.get("teacher", Given.teacher))
        measured |= {"rates": rates} if rates else {}
    jpegs = found["parts"].get("sources", {}).get("figures", {}).get("jpegs_per_core")
    if jpegs and "decode" not in values:
        measured["decode"] = jpegs
    return Given(**{**values, **measured})


def read_acceptance(file: Path) -> dict[str, Any] | None:
    """Read what was measured on a GPU at full size; None if the file has nothing of the kind."""
    found = read_json(file)
    if found is None or not isinstance(found.get("facts"), dict) or not isinstance(found.get("parts"), dict):
        return None
    return found if found["facts"].get("kind") == "cuda" and not found["facts"].get("quick") else None


def rates_of(found: Mapping[str, Any], teacher: str) -> dict[str, float]:
    """Return TFLOP/s by stage: ViT-L's for teachers at least as large, else ViT-B's; of the slowest of the probes."""
    name = VIT_L if "vitl" in teacher or "vitg" in teacher else VIT_B
    parts = found["parts"]
    steps = parts.get("steps", {}).get("figures", {}).get("tflops", {}).get(name, {})
    rates = {stage: steps[key] for stage, key in STAGES.items() if key in steps}
    probes = parts.get("probes", {}).get("figures", {}).get("tflops", {})
    return rates | ({"probes": min(probes.values())} if probes else {})


def described(given: Given) -> str:
    """Describe where rates come from."""
    rates = ", ".join(f"{stage} {rate:.3g}" for stage, rate in given.rates.items())
    missing = "" if len(given.rates) == 3 else f"{given.tflops:g} TFLOP/s a GPU, given, not measured"
    measured = f"{rates} TFLOP/s a GPU, measured ({given.measured})" if rates else ""
    return f"{'; '.join(filter(None, (measured, missing)))}; {given.decode:.3g} JPEGs/s a core"
