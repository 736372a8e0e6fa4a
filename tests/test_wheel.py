"""The wheel holds all that an installed package needs, and works from any folder."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_wheel_runs_from_another_folder(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    package = tmp_path / "site" / "raptor"
    for part in ("configs/train.yaml", "assets/digits_vit/model.safetensors", "reporting/templates/report.html.j2"):
        assert (package / part).is_file()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "RAPTOR_COLD": "1"}
    where = "import raptor; print(raptor.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", where], cwd=elsewhere, env=environment, capture_output=True, text=True
    )
    assert found.stdout.strip() == str(package / "__init__.py")
    job = [sys.executable, "-m", "raptor.train", "trainer.max_steps=2", "trainer.enable_progress_bar=false", "name=run"]
    done = subprocess.run(job, cwd=elsewhere, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (elsewhere / "runs" / "default" / "run" / "model.safetensors").is_file()
