"""What all commands share: Hydra's entry point, logging, and errors as one clear message."""

from __future__ import annotations

import difflib
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from raptor.cli import sweeps
from raptor.errors import ConfigError, RaptorError
from raptor.runs.folder import RunFolder
from raptor.utils.files import CONFIGS

CLOSED = ("recipe", "paths")  # nodes that only other nodes refer to, so that nobody would miss a mistyped key


class Command:
    """``python -m raptor.NAME``: a function of a configuration, and the folder where it keeps its status.

    Parameters
    ----------
    name
        Root configuration in ``configs/``, without ``.yaml``.
    function
        Called with the configuration and the folder.
    folder
        Gives the folder of a configuration.
    """

    def __init__(
        self, name: str, function: Callable[[DictConfig, RunFolder], Any], folder: Callable[[DictConfig], RunFolder]
    ) -> None:
        self.name, self.function, self.folder = name, function, folder
        self.__doc__ = function.__doc__

    def run(self, config: DictConfig, folder: RunFolder | None = None) -> Any:
        """Run one job in this process."""
        set_up_logging()
        return self.function(config, folder or self.folder(config))

    def _task(self, config: DictConfig) -> Any:
        check_keys(config, self.name)
        return self.run(config)

    def __call__(self) -> None:
        """Run what the command line says. Errors that a user can mend end it with one message and exit code 1."""
        # Hydra otherwise prints and exits by itself, which hides our messages behind its traceback
        os.environ.setdefault("HYDRA_FULL_ERROR", "1")
        try:
            if not sweeps.shown(self.name):
                hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=self.name)(self._task)()
        except KeyboardInterrupt:
            sys.exit(130)
        except SystemExit as stop:
            # Lightning ends a training on SIGTERM by a SystemExit without a code, which would mean success
            sys.exit(143 if type(stop).__name__ == "SIGTERMException" else stop.code)
        except Exception as error:
            message = explain(error, self.name)
            if message is None:
                raise
            sys.exit(f"error: {message}")


def command(
    name: str, folder: Callable[[DictConfig], RunFolder]
) -> Callable[[Callable[[DictConfig, RunFolder], Any]], Command]:
    """Decorate the function of a command; see :class:`Command`."""
    return lambda function: Command(name, function, folder)


def explain(error: BaseException, config_name: str) -> str | None:
    """One message for an error that the user can mend, None for any other."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, RaptorError) and "Traceback (most recent call last)" not in str(cause):
            return str(cause)
    # processes that load data or fill stores hand on their errors as text
    if handed_on := re.search(r"(?s)\nraptor\.errors\.\w+: (.*)", "\n".join(map(str, causes))):
        return handed_on[1].strip()
    if unknown := re.search(r"Could not override '([^']+)'", str(error)):
        return unknown_key(unknown[1], _known_keys(config_name))
    if isinstance(error, HydraException | OmegaConfBaseException):
        return "\n".join(dict.fromkeys(str(c) for c in causes))
    return None


def unknown_key(key: str, known: Iterable[str]) -> str:
    """Message for a key that no config has, with the nearest ones that exist."""
    known = list(known)
    near = difflib.get_close_matches(key, known, n=3, cutoff=0.6)
    near += [other for other in known if other.endswith(f".{key}") and other not in near][:3]
    hint = f"did you mean {' or '.join(near)}?" if near else "see --cfg job for the keys there are"
    return f"unknown key {key!r}: {hint}"


def _known_keys(config_name: str) -> Iterator[str]:
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        yield from _keys(OmegaConf.to_container(hydra.compose(config_name)))


def _keys(node: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield f"{prefix}{key}"
            yield from _keys(value, f"{prefix}{key}.")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def check_keys(config: DictConfig, config_name: str) -> None:
    """Refuse keys that the root configuration does not have.

    Raises
    ------
    ConfigError
        Naming the key and the nearest ones that exist.
    """
    root = OmegaConf.to_container(OmegaConf.load(CONFIGS / f"{config_name}.yaml"))
    assert isinstance(root, dict)
    known = {str(key) for key in root} | {str(next(iter(e))) for e in root["defaults"] if isinstance(e, dict)}
    if not isinstance(config.get("seed", 0), int):
        raise ConfigError(f"seed={config.seed} must be a whole number")
    for override in HydraConfig.get().overrides.task:
        added = override.lstrip("+").split("=")[0]
        if override.startswith("+") and added.split(".")[0] in CLOSED:
            raise ConfigError(unknown_key(added, known))
    for key in config:
        if key not in known:
            chosen = HydraConfig.get().runtime.choices.get("experiment")
            other = f"; experiment={chosen} may be one of another command" if chosen else ""
            raise ConfigError(unknown_key(str(key), known) + other)


def set_up_logging() -> None:
    """Our own messages in colour on the standard error, of libraries only warnings."""
    from rich.console import Console
    from rich.logging import RichHandler

    root = logging.getLogger()
    if not any(isinstance(handler, RichHandler) for handler in root.handlers):
        console = RichHandler(console=Console(stderr=True), show_path=False, log_time_format="%H:%M:%S")
        # libraries set their own level on import, so what they say is sorted out here
        console.addFilter(lambda record: record.name.startswith("raptor") or record.levelno >= logging.WARNING)
        root.addHandler(console)
    logging.getLogger("raptor").setLevel(logging.INFO)
    for expected in (
        "does not have many workers",
        "ended before the epoch ended and your dataloader is",  # ours resumes
        "in eval mode at the start of training",  # the frozen teacher
        "smaller than the logging interval",
        "LeafSpec",
        "jit.script` is deprecated",  # torch's own, when it differentiates forward
        "`srun` command is available",  # jobs are submitted by hydra/launcher=slurm
    ):
        warnings.filterwarnings("ignore", f".*{expected}.*")
