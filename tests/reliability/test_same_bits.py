"""Same seed, same machine, one thread: the same bits, from a study of each chapter in two processes.

That a training which is killed ends on the bits of one that is left alone is in test_killed.
"""

import json
import os
import subprocess
import sys

import pytest
from conftest import HERE, ROOT
from same_bits import RUNS


@pytest.fixture(scope="module")
def twice():
    """What two processes that run at the same time compute."""
    command = [sys.executable, str(HERE / "same_bits.py")]
    how = {
        "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True,
        "env": os.environ | {"OMP_NUM_THREADS": "1", "EXITWAVE_PROJECT": str(ROOT)},
    }  # fmt: skip
    running = [subprocess.Popen(command, **how) for _ in range(2)]
    found = []
    for process in running:
        said, errors = process.communicate(timeout=290)
        assert process.returncode == 0, errors
        found.append(json.loads(said.splitlines()[-1]))
    return found


@pytest.mark.parametrize("paper", RUNS)
def test_every_number_is_the_same(twice, paper):
    one, two = (each[paper] for each in twice)
    assert len(one) > 5
    assert one == two
