"""Fixtures that several rooms share: a tiny ViT, and the commands as users call them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

from raptor.models.block import BlockConfig
from raptor.models.teacher import Teacher
from raptor.models.vit import ViTSpec
from tests import warm
from tests.shapes import check_names

torch.set_num_threads(1)  # the workers of pytest-xdist share the cores

TINY = {"img_size": 8, "patch_size": 4, "in_chans": 1, "num_classes": 10, "embed_dim": 16, "num_heads": 2}


def tiny_spec(depth: int = 4, **options: Any) -> ViTSpec:
    values = {**TINY, "depth": depth, "reg_tokens": 2, **options}
    return ViTSpec("vit_tiny_patch16_224", values, mean=(0.3,), std=(0.4,))


def pytest_configure(config: pytest.Config) -> None:
    """Let the processes that tests start be forks, which have torch imported; all workers share one server."""
    if not hasattr(config, "workerinput"):
        folder = tempfile.TemporaryDirectory(prefix="raptor-warm-")
        config.add_cleanup(folder.cleanup)
        os.environ.update({warm.FOLDER: folder.name, f"{warm.FOLDER}_OWNER": str(os.getpid())})
    warm.install()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what the forked processes took, which pytest does not count."""
    if warm.is_on() and (seconds := warm.seconds()):
        terminalreporter.write_line(f"{len(seconds)} forked processes computed for {sum(seconds):.0f} s")


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests of ``make check``, leave out attacks and what is long, and begin with the files that take longest.

    SLURM's files come before all: workers take whole files, and so end together.
    """
    for mark in ("attack", "long"):
        if mark not in config.option.markexpr:
            items[:] = [item for item in items if not item.get_closest_marker(mark)]
    for item in items:
        in_a_room = item.path.parent != Path(__file__).parent
        if in_a_room and not any(
            item.get_closest_marker(mark) for mark in ("slow", "slurm", "gpu", "docs", "attack", "long")
        ):
            item.add_marker("fast")
    first: dict[Path, int] = {}
    for item in items:
        rank = next((i for i, mark in enumerate(("slurm", "slow")) if item.get_closest_marker(mark)), 2)
        first[item.path] = min(rank, first.get(item.path, 2))
    items.sort(key=lambda item: first[item.path])


@pytest.fixture(scope="session", autouse=True)
def shapes() -> None:
    """Compare tensors with the names of parameters in the whole session: ``x_BND`` has batch, tokens and width."""
    assert check_names("raptor.models", "raptor.analysis", "raptor.tasks") > 20


@pytest.fixture
def teacher() -> Teacher:
    """Four layers of width 16; one class token, two registers, four patches."""
    torch.manual_seed(0)
    teacher = Teacher(tiny_spec()).eval()
    for parameter in teacher.parameters():  # timm starts at 0.02, which makes all layers nearly the identity
        parameter.data.normal_(std=0.3)
    return teacher


@pytest.fixture
def block_config() -> BlockConfig:
    return BlockConfig(width=16, num_heads=2, layer_scale=0.3)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Call a command in this process, as ``python -m raptor.<command> <arguments>`` would."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")

    def run(command: str, *arguments: str) -> None:
        import importlib

        GlobalHydra.instance().clear()
        monkeypatch.setattr(sys, "argv", [command, *arguments])
        importlib.import_module(f"raptor.{command}").main()

    yield run
    GlobalHydra.instance().clear()


def start(command: str, *arguments: str, cwd: Path, **kwargs: Any) -> subprocess.Popen[str]:
    """Start a command in its own process, on one thread; interrupts reach it, also if tests run in the background."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("HYDRA_FULL_ERROR", None)
    return subprocess.Popen(
        [sys.executable, "-m", f"raptor.{command}", *arguments],
        cwd=cwd,
        env=environment,
        text=True,
        # shells have jobs with & ignore SIGINT; forks of the server do not
        preexec_fn=None if warm.is_on() else lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **kwargs,
    )
