"""Fixtures of the tests of what happens when something breaks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# Writers of sample files, a tiny book.
sys.path[:0] = [str(HERE), str(HERE.parent / "readers"), str(HERE.parent / "book")]


def run_rounds(folder, *scenarios, seed=1):
    """Return what rounds.py tells of scenarios."""
    command = [
        sys.executable,
        "-W",
        "error",
        str(HERE / "rounds.py"),
        ",".join(scenarios),
        str(folder),
        str(seed),
    ]
    environment = os.environ | {"EXITWAVE_PROJECT": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=280)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Folders of runs and data in the temporary one; chapters and books come from the checkout."""
    monkeypatch.setenv("EXITWAVE_PROJECT", str(ROOT))
    monkeypatch.setenv("EXITWAVE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("EXITWAVE_DATA", str(tmp_path / "data"))
    return tmp_path
