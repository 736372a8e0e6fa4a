"""What commands print: messages of this package, and of libraries only warnings that matter."""

from __future__ import annotations

import io
import logging
import sys
import warnings

EXPECTED = (
    "does not have many workers",
    "ended before the epoch ended and your dataloader is",  # ours resumes
    "in eval mode at the start of training",  # the frozen teacher
    "smaller than the logging interval",
    "LeafSpec",
    "jit.script` is deprecated",  # torch's own, when it differentiates forward
    "Please add the following callbacks: ..Timer..",  # a run goes on without trainer.max_time
    "`srun` command is available",  # jobs are submitted by hydra/launcher=slurm
)


def replace_unprintable() -> None:
    """Print ``?`` for characters that the locale's encoding lacks, where Python would end with an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.encoding.lower() not in ("utf-8", "utf8"):
            stream.reconfigure(errors="replace")


def set_up_logging() -> None:
    """Show messages of this package in colour on the standard error, of libraries only warnings."""
    from rich.console import Console
    from rich.logging import RichHandler

    root = logging.getLogger()
    if not any(isinstance(handler, RichHandler) for handler in root.handlers):
        console = RichHandler(console=Console(stderr=True), show_path=False, log_time_format="%H:%M:%S")
        # libraries set their own level on import, so what they say is sorted out here
        console.addFilter(lambda record: record.name.startswith("raptor") or record.levelno >= logging.WARNING)
        root.addHandler(console)
    logging.getLogger("raptor").setLevel(logging.INFO)
    for expected in EXPECTED:
        warnings.filterwarnings("ignore", f".*{expected}.*")
