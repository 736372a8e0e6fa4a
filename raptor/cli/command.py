"""A command: Hydra's entry point around a function of typed options, and errors as one clear message."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import hydra
from omegaconf import DictConfig, OmegaConf

from raptor.cli import sweeps
from raptor.cli.arguments import check_encoding, expand_home, read_arguments, with_new_keys, without_null_groups
from raptor.cli.logs import replace_unprintable, set_up_logging
from raptor.cli.messages import explain
from raptor.errors import ConfigError
from raptor.runs.folder import RunFolder
from raptor.runs.options import RunOptions
from raptor.utils import distributed, signals
from raptor.utils.files import CONFIGS
from raptor.utils.options import parse

Options = TypeVar("Options", bound=RunOptions)


class Command(Generic[Options]):
    """``python -m raptor.NAME``: a function of typed options, and the folder where it keeps its status.

    Parameters
    ----------
    options
        Typed root of the command's configuration; its ``command`` is the name.
    function
        Called with the options and the folder.
    folder
        Makes the folder from the options and the configuration as it was composed.
    """

    def __init__(
        self,
        options: type[Options],
        function: Callable[[Options, RunFolder], Any],
        folder: Callable[[Options, DictConfig], RunFolder],
    ) -> None:
        self.options, self.function, self._folder = options, function, folder
        self.name = options.command
        self.__doc__ = function.__doc__

    def parse(self, config: DictConfig) -> Options:
        """Check a composed configuration, before anything is loaded.

        Raises
        ------
        ConfigError
            Naming the first key that is missing, unknown or of a value that does not fit.
        """
        missing = sorted(OmegaConf.missing_keys(config))
        if missing:
            raise ConfigError.of(missing[0], "???", "a value", f"set {missing[0]}=...")
        return parse(self.options, OmegaConf.to_container(config, resolve=True))

    def folder(self, config: DictConfig) -> RunFolder:
        """Make the folder of a configuration."""
        return self._folder(self.parse(config), config)

    def run(self, config: DictConfig, folder: RunFolder | None = None) -> Any:
        """Run one job in this process."""
        set_up_logging()
        distributed.claim_ranks()
        options = self.parse(config)
        return self.function(options, folder or self._folder(options, config))

    def __call__(self) -> None:
        """Run what the command line says. Errors that a user can repair end it with one message and exit code 1."""
        # Hydra otherwise prints and exits by itself, which hides our messages behind its traceback
        os.environ.setdefault("HYDRA_FULL_ERROR", "1")
        replace_unprintable()
        try:
            check_encoding(sys.argv[1:])
        except ConfigError as error:
            sys.exit(f"error: {error}")
        expand_home()
        arguments = read_arguments(sys.argv[1:])
        try:
            sys.argv[1:] = with_new_keys(without_null_groups(self.name, sys.argv[1:]))
            arguments = read_arguments(sys.argv[1:])
            if arguments.help and (topics := [o for o in arguments.overrides if "=" not in o]):
                from raptor.cli.help import show_options

                show_options(self.options, topics, [o for o in arguments.overrides if "=" in o])
            elif arguments.multirun and arguments.cfg == "job" and not (arguments.config_dir or arguments.package):
                sweeps.print_jobs(self.name, arguments.overrides)
            else:
                hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=self.name)(self.run)()
        except KeyboardInterrupt:
            sys.exit(130)
        except SystemExit as stop:
            if signals.is_stop_requested():
                signals.leave(signals.exit_code() or 1)
            sys.exit(exit_code(stop))
        except Exception as error:
            message = explain(error, self.name, arguments.overrides)
            if message is None:
                raise
            sys.exit(f"error: {message}")


def exit_code(stop: SystemExit) -> Any:
    """Return the code of an exit; Lightning ends on SIGTERM without one, which would mean success."""
    if "pytorch_lightning" in sys.modules:
        from pytorch_lightning.utilities.exceptions import SIGTERMException

        if isinstance(stop, SIGTERMException):
            return 143
    return stop.code


def command(
    options: type[Options], folder: Callable[[Options, DictConfig], RunFolder]
) -> Callable[[Callable[[Options, RunFolder], Any]], Command[Options]]:
    """Decorate the function of a command; see :class:`Command`."""
    return lambda function: Command(options, function, folder)
