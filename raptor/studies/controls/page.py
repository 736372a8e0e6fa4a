"""Write the report of the study of controls: tables in every form, figures, and one page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from raptor.reporting.crosstable import latex_document
from raptor.reporting.overview import runs_csv
from raptor.reporting.page import write_study_page
from raptor.reporting.prose import caption
from raptor.reporting.statistics import MeanCI
from raptor.reporting.table import NOTHING, Table
from raptor.runs.study import Study
from raptor.studies.controls import statistics as statistic
from raptor.studies.controls.figures import by_method
from raptor.studies.controls.rows import FLOORS, MEASURES, METHODS, OTHERS, TIED, floors, references, rows
from raptor.utils.files import write_json, write_text

SHORT = ("probe", "r2_cls", "r2_patches", "r2_cls_last", "above_cls", "above_patches")
TEMPLATES = Path(__file__).parent / "templates"


def write_controls(study: Study, output: Path, title: str) -> str:
    """Write ``controls.json``, tables as Markdown, CSV and LaTeX, figures and ``report.html``; return the tables.

    Parameters
    ----------
    study
        Runs of experiment=controls.
    output
        Folder to write to; made if missing.
    title
        Heading of the page.
    """
    output.mkdir(parents=True, exist_ok=True)
    every = rows(study)
    ks = [int(k) for k in every["k"].unique()]
    summary = statistic.summary(every)
    of_floors = pd.concat([statistic.floor_rows(floors(study, k), k) for k in ks])
    compared, known = statistic.differences(every), references(study)
    found = statistic.findings(compared)
    frames = {"rows": every, "summary": summary, "floors": of_floors, "differences": compared, "findings": found}
    shares = statistic.parameter_range(every)
    plain = {name: frame.astype(object).where(frame.notna(), None).to_dict("records") for name, frame in frames.items()}
    content = {**plain, "references": known, "parameters_over_tied": list(shares)}
    write_json(output / "controls.json", content)
    for k in ks:
        short_table(content, k).write_markdown(output)
    write_text(output / "controls.csv", every.to_csv(index=False))
    write_text(output / "runs.csv", runs_csv(study))
    tables = [Table("findings", "Do tied blocks win?", _findings(found), caption("findings", TEMPLATES))]
    for k in ks:
        text = caption("methods", TEMPLATES, k=k, lowest=f"{shares[0]:.2f}", highest=f"{shares[1]:.2f}")
        shown = _methods(summary[summary["k"] == k], of_floors[of_floors["k"] == k], known)
        tables.append(Table(f"controls_k{k}", f"Methods with the parameters of k={k} tied blocks", shown, text))
    for table in tables:
        table.write_markdown(output)
        write_text(output / f"{table.name}.tex", table.to_latex())
    write_text(output / "controls_document.tex", _document(tables))
    text = caption("figure", TEMPLATES)
    figures = [
        (f"controls_k{k}", f"Every method and the floors, k={k}", text, by_method(summary, of_floors, known, k, OTHERS))
        for k in ks
    ]
    write_study_page(study, output, title, tables, figures)
    return "\n\n".join(f"{table.title}\n\n{table.to_markdown()}" for table in tables)


def short_table(found: Mapping[str, Any], k: int) -> Table:
    """Return the main numbers of one k.

    Parameters
    ----------
    found
        What ``controls.json`` holds.
    k
        Number of tied blocks.
    """
    lines = []
    for row in found["summary"]:
        if row["k"] == k:
            line = {"method": METHODS[row["method"]], "seeds": str(row["seeds"])}
            line |= {"parameters": f"{row['parameters']:,}"}
            known = {key: float("nan") if value is None else value for key, value in row.items()}
            lines.append(line | {MEASURES[key][0]: _interval(known, key, *MEASURES[key][1:]) for key in SHORT})
    for row in found["floors"]:
        if row["k"] == k:
            scores = {MEASURES[key][0]: f"{row[key]:.3f}" for key in SHORT if key in row}
            lines.append({"method": FLOORS[row["method"]]} | scores)
    for name, values in found["references"].items():
        mean = MeanCI.of(values)
        part = {"probe_mean": mean.mean, "probe_ci95": mean.ci95}
        lines.append({"method": name, MEASURES["probe"][0]: _interval(part, "probe", 1, 100.0)})
    return Table(f"short_k{k}", f"k={k}", pd.DataFrame(lines).fillna(NOTHING))


def _methods(summary: pd.DataFrame, of_floors: pd.DataFrame, known: dict[str, list[float]]) -> pd.DataFrame:
    """Return the table of one k as it is shown: methods, floors, then the networks that were probed beside them."""
    lines = []
    for row in summary.to_dict("records"):
        line = {"method": METHODS.get(str(row["method"]), str(row["method"])), **_costs(row)}
        line |= {head: _interval(row, measure, digits, scale) for measure, (head, digits, scale) in MEASURES.items()}
        lines.append(line)
    for row in of_floors.to_dict("records"):
        line = {"method": FLOORS[str(row["method"])]}
        lines.append(line | {MEASURES[key][0]: f"{row[key]:.3f}" for key in MEASURES if key in row})
    for name, values in known.items():
        mean = MeanCI.of(values)
        part: dict[Any, Any] = {"probe_mean": mean.mean, "probe_ci95": mean.ci95}
        lines.append({"method": name, MEASURES["probe"][0]: _interval(part, "probe", 1, 100.0)})
    return pd.DataFrame(lines).fillna(NOTHING)


def _costs(row: dict[Any, Any]) -> dict[str, str]:
    return {
        "block parameters": f"{int(row['parameters']):,}",
        "MFLOPs": f"{row['flops'] / 1e6:.1f}",
        "images": f"{int(row['images']):,}",
        "seeds": str(row["seeds"]),
    }


def _interval(row: dict[Any, Any], measure: str, digits: int, scale: float) -> str:
    mean, ci95 = row[f"{measure}_mean"], row[f"{measure}_ci95"]
    if mean != mean:
        return NOTHING
    return f"{scale * mean:.{digits}f}" + (f" ± {scale * ci95:.{digits}f}" if ci95 == ci95 else "")


def _findings(found: pd.DataFrame) -> pd.DataFrame:
    """Return which methods tied blocks beat, lose to, or neither, in words."""
    heads = {
        statistic.WINS: f"{METHODS[TIED]} beat",
        statistic.LOSES: "lose to",
        statistic.OPEN: "interval contains 0",
    }
    lines = []
    for row in found.to_dict("records"):
        names = {head: "; ".join(METHODS[m] for m in row[word]) or NOTHING for word, head in heads.items()}
        lines.append({"k": str(row["k"]), "measure": MEASURES[str(row["measure"])][0], **names})
    return pd.DataFrame(lines)


def _document(tables: list[Table]) -> str:
    """Return a LaTeX document around the tables, to be compiled as it is."""
    inner = "".join(
        f"\\begin{{table}}\n\\centering\n\\tiny\n\\resizebox{{\\textwidth}}{{!}}{{\\input{{{table.name}}}}}\n"
        f"\\end{{table}}\n"
        for table in tables
    )
    head, end = latex_document("", "").split("\\begin{table}")[0], "\\end{document}\n"
    return head.replace("\\usepackage{booktabs}", "\\usepackage{booktabs,graphicx}") + inner + end
