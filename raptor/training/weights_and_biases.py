"""Weights & Biases as a logger that follows a run folder over its attempts."""

from __future__ import annotations

import hashlib
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from raptor.errors import ConfigError
from raptor.training.curves import Journal, Row, RunLogger
from raptor.utils.files import read_json, write_json, write_text

STEP = "trainer/global_step"
PATIENCE = 60.0  # seconds for a server to answer
OFFLINE = "set logger.wandb.offline=true and send the run later by wandb sync"


class ResumableWandb(WandbLogger, RunLogger):
    """Weights & Biases under one id for each run folder, with each step of the training once.

    wandb's own process keeps rows in memory for a while, and SLURM kills it together with the job. So rows go to a
    journal in the run folder when the state of the training is saved, and from there to wandb: at once where it is
    online, at the end of the attempt where it is offline. The next attempt hands over what a killed one did not, and
    logs again what that one did not save.

    Parameters
    ----------
    save_dir
        Run folder.
    **kwargs
        Of Lightning's ``WandbLogger``.

    Raises
    ------
    ConfigError
        If runs are to be sent and there is no key.
    """

    def __init__(self, save_dir: str, **kwargs: Any) -> None:
        path = Path(save_dir)
        self._live = not kwargs.get("offline", False)
        if self._live:
            _check_key()
        super().__init__(save_dir=save_dir, id=_run_id(path), name=path.name, resume="allow", **kwargs)
        self._journal, self._mark = Journal(path / "wandb" / "journal.jsonl", STEP), path / "wandb" / "handed_over.json"
        self._rows: list[Row] = []  # of the journal
        self._held: list[Row] = []
        self._early: Row | None = None
        self._handed = 0

    @rank_zero_only
    def begin(self, step: int) -> None:
        """Find out what an earlier attempt handed over, and connect to the server.

        Raises
        ------
        ConfigError
            If the server does not answer or refuses the run.
        """
        self._rows = self._journal.cut(step)
        self._handed = (read_json(self._mark) or {}).get("rows", 0)
        if self._live:  # a run that goes on has a next step
            next_step = self._connect().step
            self._handed = sum(row[STEP] < next_step for row in self._rows)

    def _connect(self) -> Any:
        import wandb

        self._wandb_init["settings"] = wandb.Settings(init_timeout=PATIENCE)
        try:
            return self.experiment
        except (wandb.errors.Error, OSError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            expected = f"a server that takes the run ({reason})"
            raise ConfigError.of("logger.wandb.offline", False, expected, OFFLINE) from error

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Keep them until :meth:`begin` connects."""
        self._wandb_init["config"] = dict(params)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Hold a row until :meth:`commit`."""
        row = {**metrics, STEP: step}
        if row != self._early:
            self._held.append(row)
        self._early = None

    @rank_zero_only
    def commit(self, row: Row | None) -> None:
        """Write down what is held, and hand it over where wandb is online."""
        if row is not None:
            self._early = {"epoch": 0, **{name: value for name, value in row.items() if name != "step"}}
            self._early[STEP] = row["step"]
            self._held.append(self._early)
        self._write_down()

    def _write_down(self) -> None:
        if not self._held:
            return
        self._journal.append(self._held, durable=True)
        self._rows += self._held
        self._held = []
        if self._live:
            self._hand_over()

    def _hand_over(self) -> None:
        for row in self._rows[self._handed :]:
            self.experiment.log(row, step=row[STEP])
        self._handed = len(self._rows)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Hand over what is written down, and end the run; what is held counts only if the training ended well."""
        if status == "success":
            self._write_down()
        if self._handed < len(self._rows):
            self._hand_over()
        super().finalize(status)
        if self._experiment is not None:
            self._experiment.finish(exit_code=0 if status == "success" else 1)
            write_json(self._mark, {"rows": self._handed})
        if "wandb" in sys.modules:  # the next job of a sweep would write into the same run
            sys.modules["wandb"].finish(exit_code=0 if status == "success" else 1)


def _check_key() -> None:
    import wandb

    if not wandb.api.api_key:
        expected = "true, or a key for the server: there is none in WANDB_API_KEY or ~/.netrc"
        raise ConfigError.of("logger.wandb.offline", False, expected, f"run wandb login first, or {OFFLINE}")


def _run_id(folder: Path) -> str:
    """Return the id of the folder's run, made once: a folder that was deleted and trained anew is another run."""
    path = folder / "wandb" / "run_id"
    if path.is_file():
        return path.read_text(encoding="utf-8").strip()
    earlier = folder / "wandb" / "journal.jsonl"  # of a release that took the folder's path for the id
    by_path = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    ident = by_path if earlier.is_file() else secrets.token_hex(8)
    _store(path, ident)
    return ident


@rank_zero_only
def _store(path: Path, ident: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, ident)
