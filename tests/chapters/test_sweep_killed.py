"""Sweeps on a scheduler that was started by itself: what is stored once stays, whoever is killed.

Workers and commands are processes of their own; the study that they compute counts its calls in files.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from exitwave import records
from exitwave.chapters import sweep

HERE = Path(__file__).parent
BEAMS = [10, 20, 30, 40]  # of which the last two can be held, see tiny_study.py
PATIENCE = 120  # seconds, on a busy machine


def start(arguments, log, **environment):
    """Start Python in a group of its own, which :func:`end` ends."""
    with open(log, "w") as out:
        return subprocess.Popen(
            [sys.executable, *arguments], stdout=out, stderr=out, start_new_session=True,
            env=os.environ | {"PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"} | environment,
        )  # fmt: skip


def end(process):
    """End a process and its group, which holds nothing that this test did not start."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_for(what, process=None, log=None):
    limit = time.monotonic() + PATIENCE
    while not (found := what()):
        assert process is None or process.poll() is None, log.read_text()
        assert time.monotonic() < limit, "nothing happens"
        time.sleep(0.05)
    return found


class Cluster:
    """A scheduler, its address, and workers of one thread."""

    def __init__(self, folder):
        self.folder, self.calls, self.processes = folder, folder / "calls", []
        self.calls.mkdir()
        address = folder / "scheduler.json"
        common = ["-m", "dask"]
        self.begin(
            *common, "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file",
            str(address),
        )  # fmt: skip
        wait_for(lambda: address.is_file() and address.read_text().endswith("}"))
        self.address = json.loads(address.read_text())["address"]
        self.workers = [
            self.begin(
                *common, "worker", self.address, "--nthreads", "1", "--no-nanny", "--no-dashboard",
                "--preload", "tiny_study", "--local-directory", str(folder),
            )
            for _ in range(2)
        ]  # fmt: skip

    def begin(self, *arguments):
        process = start(
            arguments, self.folder / f"log-{len(self.processes)}", TINY_CALLS=str(self.calls),
            EXITWAVE_RUNS=str(self.folder / "runs"),
        )  # fmt: skip
        self.processes.append(process)
        return process

    @contextmanager
    def held(self):
        """Let no call of many beams end; whoever kills one lets the others go by :meth:`release`."""
        (self.calls / "hold").touch()
        yield
        self.release()

    def release(self):
        (self.calls / "hold").unlink(missing_ok=True)

    def counted(self, seed, ending="begun", pid=None):
        """Return how often each number of beams was called."""
        names = [path.name.split(".")[0].split("-") for path in self.calls.glob(f"{seed}-*.{ending}")]
        return Counter(int(name[1]) for name in names if pid in (None, int(name[2])))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    for process in cluster.processes:
        end(process)


@pytest.fixture
def runs(cluster, monkeypatch):
    monkeypatch.setenv("EXITWAVE_RUNS", str(cluster.folder / "runs"))
    monkeypatch.syspath_prepend(str(HERE))
    import tiny_study  # noqa: F401  (registers the study in this process too)

    return cluster.folder / "runs" / "webb2025"


def journal(runs):
    path = runs / "points" / "journal.jsonl"
    return path.read_text().splitlines() if path.is_file() else []


def stored(runs):
    """Return the (seed, beams) of the points in the journal, each as often as it is there."""
    found = []
    for line in journal(runs):
        note = json.loads(line)
        made = records.provenance_of(records.load(runs / "points" / f"{note['study']}-{note['point']}.nc"))
        found.append((made["seed"], made["parameters"]["few_beams"]))
    return found


def finish(cluster, seed, report=lambda *_: None):
    """Sweep over all beams from this process, by the address, and check what comes out."""
    axes = {"scale": ["smoke"], "seed": [seed], "few_beams": BEAMS}
    path, result = sweep.run_sweep("webb2025", "tiny", axes, report=report, scheduler=cluster.address)
    assert result["value"].values.tolist() == [beams + seed / 1000 for beams in BEAMS]
    assert records.load(path)["value"].equals(result["value"])


def test_a_killed_command_resumes_and_calls_nothing_again_that_was_stored(cluster, runs):
    arguments = ["sweep", "webb2025", "tiny", "-p", "scale=smoke", "-p", "seed=1"]
    arguments += ["-p", f"few_beams={','.join(map(str, BEAMS))}", "--scheduler", cluster.address]
    code = "import sys, tiny_study; from exitwave.cli import main; main()"
    with cluster.held():
        command = cluster.begin("-c", code, *arguments)
        log = cluster.folder / f"log-{len(cluster.processes) - 1}"
        wait_for(lambda: len(journal(runs)) == 2, command, log)
        end(command)
    before = stored(runs)
    files = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in runs.glob("points/*.nc")}
    assert sorted(before) == [(1, 10), (1, 20)]
    spent = []
    finish(cluster, 1, lambda _, seconds: spent.append(seconds))
    assert spent.count(0.0) == len(files) == 2
    assert sorted(stored(runs)) == [(1, beams) for beams in BEAMS]
    for path, (content, modified) in files.items():
        assert (path.read_bytes(), path.stat().st_mtime_ns) == (content, modified)
    calls = cluster.counted(1)
    assert set(calls) == set(BEAMS)
    for _, beams in before:
        assert calls[beams] == 1


def test_a_killed_worker_costs_only_what_it_had_in_hand(cluster, runs):
    lost, kept, killed = set(), set(), []

    def kill(point, _):
        """Kill a worker in the middle of a call, once both points that are not held are stored."""
        mine = [beams for seed, beams in stored(runs) if seed == 2]
        if killed or len(mine) < 2:
            return
        inside = lambda worker: max(cluster.counted(2, pid=worker.pid), default=0) >= 30  # noqa: E731
        victim = wait_for(lambda: next(filter(inside, cluster.workers), None))
        end(victim)
        killed.append(victim)
        kept.update(mine)
        lost.update(set(cluster.counted(2, pid=victim.pid)) - kept)
        cluster.release()

    with cluster.held():
        finish(cluster, 2, kill)
    [victim] = killed
    assert victim.returncode == -signal.SIGKILL
    assert kept == {10, 20}
    assert lost
    assert lost <= {30, 40}
    assert sorted(beams for seed, beams in stored(runs) if seed == 2) == BEAMS
    calls = cluster.counted(2)
    # Called again is what the worker had begun and not handed over, and nothing else.
    assert {beams for beams, number in calls.items() if number > 1} == lost
    assert all(calls[beams] == 1 for beams in BEAMS if beams not in lost)
    assert all(calls[beams] == 2 for beams in lost)
    assert all(cluster.counted(2, "ended")[beams] == 1 for beams in BEAMS)


def test_local_workers_do_not_outlive_a_killed_sweep(tmp_path):
    code = (
        "import time\n"
        "if __name__ == '__main__':\n"  # workers run the rest of the script too
        "    from exitwave.chapters.points import dask_client\n"
        "    with dask_client(1, None) as client:\n"
        "        print(client.submit(int, 7).result(), flush=True)\n"
        "        time.sleep(600)\n"
    )
    script, log = tmp_path / "sweeping.py", tmp_path / "log"
    script.write_text(code)
    process = start([str(script)], log)
    try:
        wait_for(lambda: log.read_text().strip() == "7", process, log)
        workers = psutil.Process(process.pid).children(recursive=True)
        assert workers
        process.kill()
        process.wait()
        # Workers see that the scheduler is gone and end themselves.
        wait_for(lambda: not any(alive(worker) for worker in workers))
    finally:
        end(process)


def alive(process):
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
