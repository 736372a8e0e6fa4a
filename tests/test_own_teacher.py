"""The commands of docs/own_teacher_and_data.md, as bash and zsh read them, run in a small form."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import raptor
from tests.test_docs import ROOT, composed

PAGE = "docs/own_teacher_and_data.md"
# a narrow ViT without published weights, on the CPU
TEACHER = [
    *("teacher.pretrained=false", "teacher.options.img_size=32", "+teacher.options.embed_dim=24"),
    *("+teacher.options.num_heads=2", "data.num_workers=0"),
]
TRAINER = [
    *("trainer.accelerator=cpu", "trainer.precision=32-true", "trainer.compile=false", "trainer.val_check_interval=2"),
    "trainer.enable_progress_bar=false",
]


def words(shell: str, folder: Path) -> list[list[str]]:
    """Words that a shell gives to ``python`` for each command of the page."""
    text = (ROOT / PAGE).read_text()
    script = "\n".join(part.split("```")[0] for part in text.split("```bash\n")[1:])
    (folder / "bin").mkdir()
    record = folder / "words"
    python = folder / "bin" / "python"
    python.write_text('#!/bin/sh\nprintf "%s\\0" "$@" end >> "$RECORD"\n')
    python.chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "RECORD": str(record)}
    options = ["-f"] if shell == "zsh" else ["--norc"]
    subprocess.run(
        [shell, *options, "-e"], input=script, env=environment, cwd=folder, text=True, check=True, timeout=60
    )
    return [command.split("\0") for command in record.read_text().removesuffix("\0end\0").split("\0end\0")]


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_shells_read_the_page_as_it_is_meant(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    found = words(shell, tmp_path)
    expected = [["-m", f"raptor.{command}", *rest] for page, command, rest in composed() if page == PAGE]
    assert found == expected
    assert len(found) == 4


@pytest.mark.slow
def test_the_commands_of_the_page_run_for_a_teacher_without_registers(
    call: Callable[..., None], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 3)):
        for name in ("cat", "dog"):
            (tmp_path / "DIR" / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 255, (40, 48, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "DIR" / split / name / f"{i}.jpg")
    commands = [(command, rest) for page, command, rest in composed() if page == PAGE]
    for command, rest in commands:
        more = TEACHER + (TRAINER if command == "train" else [])
        if "recipe=paper" in rest and "task=linear_probe" not in rest:
            more = [*more, "trainer.max_steps=3"]
        call(command, *rest, *more)
    runs = tmp_path / "runs" / "default"
    results = {name: json.loads((runs / name / "result.json").read_text()) for name in ("blocks", "surrogate", "probe")}
    assert [results[name]["steps"] for name in results] == [3, 3, 15]
    surrogate = raptor.load(runs / "surrogate")
    assert (surrogate.k, surrogate.layout.registers, surrogate.num_layers) == (3, 0, 12)
    assert results["probe"]["model"]["backbone"]["label"] == "k=3"
    assert json.loads((runs / "my_phases" / "phases.json").read_text())["boundaries"]
