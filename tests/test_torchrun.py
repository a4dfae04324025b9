"""`exitwave train` in processes that torchrun has started."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import test_train as t

from exitwave import records
from exitwave.chapters import torchrun, train
from exitwave.chapters.torchrun import Place
from exitwave.errors import InputError

runs = t.runs  # the fixture that puts small networks in the place of the paper's


def started(monkeypatch, **values):
    for name, value in ({"TORCHELASTIC_RUN_ID": "none"} | values).items():
        monkeypatch.setenv(name, str(value))


class TestPlace:
    def test_is_read_from_the_environment(self, monkeypatch):
        monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
        assert torchrun.place() is None
        started(monkeypatch, RANK=5, WORLD_SIZE=8, LOCAL_WORLD_SIZE=4)
        assert torchrun.place() == Place(rank=5, processes=8, here=4)
        assert torchrun.place().machines == 2

    @pytest.mark.parametrize(
        ("chosen", "at", "named"),
        [
            ([], Place(0, 2, 2), "one network, not"),
            (["second"], Place(0, 2, 1), "1 of 2 processes on this machine"),
            (["second"], Place(0, 5, 2), "2 of 5 processes on this machine"),
            (["second"], Place(0, 14, 7), "in 14 processes: use a number that divides it"),
        ],
    )
    def test_refuses_before_anything_starts(self, monkeypatch, chosen, at, named):
        monkeypatch.setattr(torchrun, "_compute", None)
        with pytest.raises(InputError, match=named):
            torchrun.train(t.jobs(runs=chosen), at)


def test_two_processes_of_torchrun_end_as_one(tmp_path):
    script = tmp_path / "command.py"
    script.write_text(
        f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import torch\nimport test_train as t\nfrom exitwave import cli\n"
        "t.install()\ntorch.set_num_threads(1)\ncli.main()\n"
    )
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "--",  # or torchrun takes --run for one of its own options
        str(script),
    ]
    command += ["train", "webb2025", "--scale", "smoke", "--device", "cpu", "--run", "second"]
    done = subprocess.run(
        command, env=os.environ | {"EXITWAVE_RUNS": str(tmp_path / "two"), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False, timeout=250,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    # The first process alone speaks.
    assert t.said(done.stdout) == ["100% trained"]
    assert done.stderr.count(f"step {t.STEPS} of {t.STEPS}") == 1
    [outcome] = train.train(t.jobs(runs=["second"]))
    found = records.load(tmp_path / "two" / outcome.job.point.path.relative_to(tmp_path / "runs"))
    # Gradients are summed in another order, so that the last bits differ.
    assert float(found["mse"]) == pytest.approx(float(outcome.result["mse"]), rel=1e-3)
    assert records.provenance_of(found)["device"] == "2 x cpu"
    folder = tmp_path / "two" / outcome.job.folder.relative_to(tmp_path / "runs")
    assert (folder / "weights.safetensors").is_file()
