"""The page of an acceptance: what failed, the machine, checks and figures of every part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.acceptance.runner import PARTS

FACTS = ("device", "driver", "cuda", "capability", "memory_GB", "cores", "threads", "bf16", "system", "commit", "code")


def failures(parts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """List what failed, one line for each."""
    found = []
    for name, part in parts.items():
        if part["error"]:
            found.append(f"{name}: {part['error'].splitlines()[0]}")
        found += [_line(name, check) for check in part["checks"] if not check["passed"] and not check["goal"]]
    return found


def missed(parts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """List goals of speed that were not reached."""
    return [
        f"goal not reached: {_line(name, check)}"
        for name, part in parts.items()
        for check in part["checks"]
        if check["goal"] and not check["passed"]
    ]


def _line(name: str, check: Mapping[str, Any]) -> str:
    return f"{name}: {check['what']}: {check['found']}, expected {check['wanted']}"


def page(found: Mapping[str, Any]) -> str:
    """Write the whole page in Markdown."""
    facts, parts = found["facts"], found["parts"]
    failed = failures(parts)
    lines = [f"# Acceptance on {facts['device']}", ""]
    if facts["quick"]:
        lines += ["**In small: shows that every part runs. No figure on this page means a thing.**", ""]
    lines += [f"{len(failed)} failed:", "", *_list(failed)] if failed else ["Nothing failed.", ""]
    lines += _list(missed(parts))
    if left := [name for name in PARTS if name not in parts]:
        lines += [f"Not run: {', '.join(left)}.", ""]
    lines += ["| machine | |", "|---|---|"]
    lines += [f"| {key} | {_cell(facts[key])} |" for key in FACTS if facts.get(key) is not None]
    lines += [f"| {name} | {version} |" for name, version in facts["versions"].items()]
    for name in PARTS:
        if name in parts:
            lines += ["", *_part(name, parts[name])]
    return "\n".join(lines) + "\n"


def _list(items: list[str]) -> list[str]:
    return [*(f"- {item}" for item in items), ""] if items else []


def _part(name: str, part: Mapping[str, Any]) -> list[str]:
    lines = [f"## {name}: {PARTS[name][0]}", "", f"{part['state']}, {part['seconds']:g} s"]
    if part["error"]:
        lines += ["", "```", part["error"], "```"]
    if part["checks"]:
        lines += ["", "| check | found | expected | |", "|---|---|---|---|"]
        for check in part["checks"]:
            verdict = "ok" if check["passed"] else "goal not reached" if check["goal"] else "**failed**"
            lines.append(f"| {_cell(check['what'])} | {_cell(check['found'])} | {_cell(check['wanted'])} | {verdict} |")
    if part["rows"]:
        lines += ["", "| what | ours | baseline | unit | gain | against | note |", "|---|---|---|---|---|---|---|"]
        for row in part["rows"]:
            numbers = (f"{row['ours']:,.4g}", f"{row['theirs']:,.4g}", row["unit"], f"{row['gain']:.2f}")
            lines.append(f"| {row['what']} | {' | '.join(numbers)} | {row['baseline']} | {row['note']} |")
    figures = {key: value for key, value in part["figures"].items() if not isinstance(value, dict | list)}
    if figures:
        lines += ["", "| figure | value |", "|---|---|"]
        lines += [f"| {key} | {f'{v:,.6g}' if isinstance(v, float) else v} |" for key, v in figures.items()]
    return lines


def _cell(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
