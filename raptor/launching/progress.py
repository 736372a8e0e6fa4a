"""One display for all jobs that run on this machine."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from raptor.launching.job import JobSpec
from raptor.launching.stage import Stage
from raptor.utils.terminal import plain


class Display:
    """A bar for each stage, and one for each job that runs.

    Parameters
    ----------
    stages
        What will run.
    seconds
        Between two looks at the jobs.
    """

    def __init__(self, stages: Sequence[Stage], seconds: float = 1.0) -> None:
        self.console, self.seconds = Console(stderr=True), seconds
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=self.console,
        )
        self._stages = [(stage, self._bar(stage)) for stage in stages if stage.jobs]
        self._jobs: dict[str, Any] = {}
        self._end = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)

    def _bar(self, stage: Stage) -> Any:
        name = plain(stage.name).plain
        return self.progress.add_task(name, total=len(stage.jobs), completed=len(stage.finished), note="")

    def __enter__(self) -> Display:
        if self.console.is_terminal:
            self.progress.start()
            self._watch.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._end.set()
        if self.console.is_terminal:
            self._watch.join()
            self.progress.stop()

    def end(self, job: JobSpec, code: int) -> None:
        """Count a job that has ended, and print how, with the error of one that failed.

        Parameters
        ----------
        job
            The job.
        code
            Exit code of its process.
        """
        folder = job.folder()
        status = folder.status()
        ending = "finished" if code == 0 else "interrupted" if status.get("state") == "interrupted" else "failed"
        for stage, bar in self._stages:
            if any(job is other for other in stage.to_run):
                self.progress.advance(bar)
                if not self.console.is_terminal:
                    self._print(plain(f"{stage.name}: {folder.path.name} {ending}"))
        if ending == "failed":
            self._print(Text("failed ", "red").append(plain(f"{folder}: {status.get('error') or f'exit code {code}'}")))

    def _print(self, text: Text) -> None:
        self.console.print(text, highlight=False, soft_wrap=True)

    def _look(self) -> None:
        while not self._end.wait(self.seconds):
            for stage, _ in self._stages:
                for job in stage.to_run:
                    self._show(job)

    def _show(self, job: JobSpec) -> None:
        folder = job.folder()
        name, status = str(folder), folder.status()
        if status.get("state") != "running":
            if name in self._jobs:
                self.progress.remove_task(self._jobs.pop(name))
            return
        if name not in self._jobs:
            self._jobs[name] = self.progress.add_task(f"  {plain(folder.path.name)}", total=None, note="")
        speed = status.get("steps_per_second")
        note = f"{speed} steps/s" if speed else ""
        self.progress.update(self._jobs[name], completed=status.get("step") or 0, total=status.get("total"), note=note)
