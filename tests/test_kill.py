"""A run that is killed at any moment loses nothing that was committed and falsifies no answer."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tiny import tiny_encoder

SCRIPT = Path(__file__).resolve().parent.parent / "benchmarks" / "kill.py"


def test_killed_runs_lose_nothing(tmp_path: Path) -> None:
    """A handful; `python benchmarks/kill.py --runs 200` makes more of them."""
    encoder = tiny_encoder(tmp_path / "encoder", layers=0)
    command = [sys.executable, str(SCRIPT), "--runs", "6", "--files", "120", "--tokens", "48"]
    done = subprocess.run(
        [*command, "--encoder", str(encoder)], capture_output=True, text=True, timeout=1200, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = re.search(r"6 runs, (\d+) killed .* 6 sound afterwards, 0 problems", done.stdout)
    assert told is not None, done.stdout
    assert int(told[1])
