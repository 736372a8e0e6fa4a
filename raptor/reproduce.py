"""``python -m raptor.reproduce``: run all stages of a study and its report, on SLURM or on this machine."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from rich.console import Console
from rich.table import Table

from raptor.cli import sweeps
from raptor.cli.command import command
from raptor.errors import ConfigError, LaunchError
from raptor.launching.options import SlurmOptions
from raptor.launching.plan import freeze, launcher_options, run_here, sort_all, submit
from raptor.launching.stage import Stage
from raptor.report import folder
from raptor.reporting.options import ReproduceOptions
from raptor.runs.folder import RunFolder
from raptor.utils.terminal import plain

log = logging.getLogger("raptor.reproduce")

COMMANDS = ("extract", "train", "phases", "dynamics", "report")


@command(ReproduceOptions, folder)
def main(options: ReproduceOptions, run: RunFolder) -> None:
    """Submit, or run, what is missing of a study."""
    launcher = launcher_options(HydraConfig.get().launcher)
    given = {o: o.lstrip("+").split("=")[0].split(".")[0] for o in HydraConfig.get().overrides.task}
    if "study" in given.values():
        chosen = "the study of the experiment"
        raise ConfigError.of("study", options.study, chosen, "to keep two apart, set paths.runs=... or RAPTOR_RUNS")
    handed_on = [o for o, key in given.items() if key == "paths"]
    experiment = HydraConfig.get().runtime.choices.get("experiment")
    if not options.stages:
        raise ConfigError.of("experiment", experiment, "an experiment with stages", "choose one, such as table1_mini")
    of_report = [o for o, key in given.items() if key in ("output", "title", "table")]
    lines = [*options.stages, shlex.join(["report", f"experiment={experiment}", *of_report])]
    stages = []
    for line in lines:
        name, *overrides = shlex.split(line)
        if name not in COMMANDS:
            raise ConfigError.of(
                "stages", line, f"a line that begins with {' or '.join(COMMANDS)}", "correct that line"
            )
        more = list(options.train) if name == "train" else []
        jobs = sweeps.jobs(name, [o for o in overrides if o != "-m"] + handed_on + more)
        stages.append(Stage(_title(name, overrides), freeze(name, [job.config for job in jobs], launcher)))
    sort_all(stages)
    report = stages[-1]
    if report.to_run and not any(stage.to_run or stage.under_way for stage in stages[:-1]) and _newest(stages):
        report.to_run, report.finished = [], report.jobs
    study = Path(options.paths.runs) / str(options.study)
    if isinstance(launcher, SlurmOptions):
        Console().print(_summary(stages, submit(stages, launcher)))
        log.info("python -m raptor.status %s shows how they do; the report will stand in %s", study, run)
    elif failed := run_here(stages, launcher):
        fix = f"python -m raptor.status {study} prints why; the same command continues"
        raise LaunchError.of("failed jobs", failed, "0", fix)
    else:
        log.info("%s: the report of %d jobs", run, sum(len(stage.jobs) for stage in stages) - 1)


def _newest(stages: list[Stage]) -> bool:
    """Whether the report was written after all that it reports."""
    *others, report = ([job.folder().status() for job in stage.jobs] for stage in stages)
    (own,) = report
    ended = [status.get("updated", "") for statuses in others for status in statuses]
    return own.get("state") == "finished" and own.get("updated", "") >= max(ended, default="")


def _title(name: str, overrides: list[str]) -> str:
    (*_, chosen) = ["", *(o.split("=", 1)[1] for o in overrides if o.startswith("experiment="))]
    return "+".join(part.split("/")[-1] for part in chosen.split(",")) if chosen and name != "report" else name


def _summary(stages: list[Stage], submitted: dict[str, list[str]]) -> Table:
    table = Table("stage", "jobs", "finished", "under way", "submitted", "SLURM job", title_justify="left")
    for stage in stages:
        ids = submitted[stage.name]
        numbers = (len(stage.jobs), len(stage.finished), len(stage.under_way), len(ids))
        table.add_row(plain(stage.name), *map(str, numbers), ids[0].split("_")[0] if ids else "")
    return table


if __name__ == "__main__":
    main()
