"""A site's own values."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from omegaconf import OmegaConf


def test_a_site_s_values_stand_between_ours_and_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "site" / "local").mkdir(parents=True)
    (tmp_path / "site" / "local" / "slurm.yaml").write_text(
        "partition: gpu\ntimeout_min: 720\nsbatch: {mail-type: FAIL}\n"
    )
    arguments = ["--config-dir", "site", "hydra/launcher=slurm", "hydra.launcher.timeout_min=60"]
    shown = subprocess.run(
        [sys.executable, "-m", "raptor.train", *arguments, "--cfg", "hydra", "-p", "hydra.launcher"],
        cwd=tmp_path,
        text=True,
        capture_output=True,
        check=True,
    )
    launcher = OmegaConf.create(shown.stdout)
    assert (launcher.partition, launcher.timeout_min, launcher.gpus_per_node) == ("gpu", 60, 1)
    assert launcher.sbatch == {"mail-type": "FAIL"}
