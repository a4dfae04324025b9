"""The files for clusters: run here as far as a machine without SLURM can, with stand-ins for its commands."""

import ast
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser

from exitwave import records

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FILES = ROOT / "book" / "_static" / "scaling"
PAGE = (ROOT / "book" / "scaling_out.md").read_text(encoding="utf-8")


def shim(folder, name, text):
    """Put a command in the place of one that this machine does not have."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)


def run(folder, script, *arguments, **environment):
    path = os.pathsep.join([str(folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.run(
        ["bash", str(FILES / script), *arguments],
        cwd=folder, env=os.environ | {"PATH": path, "SLURM_JOB_ID": "17"} | environment,
        capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip


def directives(text):
    lines = [
        line.removeprefix("#SBATCH").split()[0] for line in text.splitlines() if line.startswith("#SBATCH")
    ]
    return [line.removeprefix("--").partition("=")[::2] for line in lines]


@pytest.mark.parametrize("script", sorted(FILES.glob("*.sbatch")), ids=lambda path: path.name)
def test_bash_can_read_it_and_all_that_slurm_is_told_stands_before_the_first_command(script):
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = script.read_text(encoding="utf-8")
    before, _, after = told.partition("set -euo pipefail")
    assert dict(directives(before))["nodes"] == "2"
    assert "#SBATCH" not in after  # sbatch would not see it


def test_all_files_are_on_the_page():
    for path in FILES.iterdir():
        assert f"_static/scaling/{path.name}" in PAGE


class TestJobs:
    """dask-jobqueue writes the script of a job; no SLURM is asked for that."""

    def test_the_job_is_as_asked_for(self):
        asked = ["--jobs", "3", "--cores", "4", "--memory", "16GB", "--queue", "fast", "--account", "us"]
        asked += ["--walltime", "00:20:00", "--directive=--exclusive", "--print-job"]
        done = subprocess.run(
            [sys.executable, str(FILES / "slurm_cluster.py"), *asked],
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        job = done.stdout
        lines = [line for line in job.splitlines() if line.startswith("#SBATCH")]
        for option in ("-p fast", "-A us", "-n 1", "--cpus-per-task=4", "-t 00:20:00", "--exclusive"):
            assert f"#SBATCH {option}" in lines
        assert "export OMP_NUM_THREADS=1" in job
        assert "--nthreads 1" in job
        assert "--nworkers 4" in job
        assert "tcp://" in job

    def test_workers_keep_memory_as_local_ones_do(self):
        from exitwave.chapters.points import _KEEP_MEMORY

        tree = ast.parse((FILES / "slurm_cluster.py").read_text(encoding="utf-8"))
        [told] = [
            ast.literal_eval(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign) and node.targets[0].id == "PROLOGUE"
        ]
        for text in (" ".join(told), (FILES / "sweep.sbatch").read_text(encoding="utf-8")):
            for name, value in _KEEP_MEMORY.items():
                assert f"{name.rsplit('.', 1)[-1]}={value}" in text


def test_a_sweep_as_one_job(tmp_path):
    """One task on this machine; the study is that of tiny_study.py, which counts its calls."""
    shim(tmp_path / "bin", "srun", 'exec "$@"')
    shim(
        tmp_path / "bin", "exitwave",
        f'exec "{sys.executable}" -c "import tiny_study; from exitwave.cli import main; main()" "$@"',
    )  # fmt: skip
    (tmp_path / "calls").mkdir()
    done = run(
        tmp_path, "sweep.sbatch", "webb2025", "tiny", "-p", "scale=smoke", "-p", "few_beams=10,20,30,40",
        "-p", "seed=3", PYTHONPATH=str(HERE), EXITWAVE_PROJECT=str(ROOT),
        EXITWAVE_RUNS=str(tmp_path / "runs"),
        TINY_CALLS=str(tmp_path / "calls"), DASK_DISTRIBUTED__WORKER__PRELOAD="['tiny_study']",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [path] = tmp_path.glob("runs/webb2025/sweeps/*.nc")
    assert str(path) in done.stdout
    assert records.load(path)["value"].values.tolist() == [10.003, 20.003, 30.003, 40.003]
    calls = Counter(each.name.split("-")[1] for each in tmp_path.glob("calls/*.begun"))
    assert calls == {"10": 1, "20": 1, "30": 1, "40": 1}
    assert not list(tmp_path.glob("scheduler-*.json"))
    # Nobody is left behind: a scheduler would hold the pipes of the script, and `run` would not return.


def test_a_sweep_that_is_refused_fails_the_job(tmp_path):
    shim(tmp_path / "bin", "srun", "exec sleep 3")
    shim(tmp_path / "bin", "exitwave", 'echo "exitwave: no" >&2; exit 2')
    done = run(tmp_path, "sweep.sbatch", "webb2025", "nothing", PYTHONPATH=str(HERE))
    assert done.returncode == 2
    assert "exitwave: no" in done.stderr
    assert not list(tmp_path.glob("scheduler-*.json"))


def test_torchrun_understands_what_it_is_told(tmp_path):
    """Each node is told the same place to meet, its number of processes, and the command as it was given."""
    shim(tmp_path / "bin", "scontrol", r"printf 'node7\n'; sleep 0.2; printf 'node8\n'")
    shim(tmp_path / "bin", "srun", '"$@"')
    record = "import json, sys; json.dump(sys.argv[1:], open('told.json', 'w'))"
    shim(tmp_path / "bin", "torchrun", f'"{sys.executable}" -c "{record}" "$@"')
    asked = ["webb2025", "--scale", "gpu", "--run", "forward-500", "--seed", "0", "--resume"]
    done = run(
        tmp_path,
        "train.sbatch",
        *asked,
        SLURM_NNODES="2",
        SLURM_GPUS_ON_NODE="4",
        SLURM_JOB_NODELIST="node[7-8]",
    )
    assert done.returncode == 0, done.stderr
    told = get_args_parser().parse_args(json.loads((tmp_path / "told.json").read_text()))
    assert (told.nnodes, told.nproc_per_node, told.no_python) == ("2", "4", True)
    assert (told.rdzv_id, told.rdzv_backend, told.rdzv_endpoint) == ("17", "c10d", "node7:29500")
    command = [told.training_script, *told.training_script_args]
    assert [each for each in command if each != "--"] == ["exitwave", "train", *asked, "--device", "cuda"]
