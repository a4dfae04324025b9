"""Run several notebooks at once, each in a process of its own with its share of the cores.

Two chapters of one thread each take much less time than two after each other with two threads: half of what a
chapter does is not torch, and its matrices are small.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

from exitwave.chapters.execute import ChapterError, execute
from exitwave.errors import InputError, RunError

MOST_JOBS = 4  # by default, of up to 2 GB each

_REFUSED = 3  # status of a process whose notebook failed; its reason is on standard output
_LOOK = 0.5  # s, how often a process looks whether that which started it is still there


def default_jobs() -> int:
    """Return how many notebooks run at once by default: one on each core."""
    return min(os.cpu_count() or 1, MOST_JOBS)


def execute_many(
    wanted: Sequence[tuple[Path, Path, Mapping[str, object]]],
    *,
    jobs: int,
    echo: Callable[[str], object] = print,
) -> None:
    """Run notebooks and write each with its outputs, whole or not at all.

    Parameters
    ----------
    wanted : sequence of (source, output, parameters)
        As :func:`exitwave.chapters.execute.execute` takes them; begun in this order.
    jobs : int
        How many run at once. With 1 they run in this process, with a bar for the cells of each. Else each has
        ``OMP_NUM_THREADS`` of its share of the cores, if that variable is not set.
    echo : callable
        Takes one line of progress at a time.

    Raises
    ------
    ChapterError
        Of the first one that fails; those that run then are ended, those that are done stay.
    """
    if jobs <= 1 or len(wanted) <= 1:
        for source, output, parameters in wanted:
            execute(source, output, parameters)
        return
    running: set[subprocess.Popen[str]] = set()
    ended = threading.Event()

    def run(number: int, source: Path, output: Path, parameters: Mapping[str, object]) -> None:
        if ended.is_set():
            return
        echo(f"{source.stem}: running, {number} of {len(wanted)}")
        begin = time.monotonic()
        process = _start(source, output, parameters, threads=max(1, (os.cpu_count() or 1) // jobs))
        running.add(process)
        if ended.is_set():  # between the two lines above
            process.terminate()
        reason, _ = process.communicate()
        running.discard(process)
        if ended.is_set():
            return
        if process.returncode:
            said = reason.strip().splitlines()[-1:] if process.returncode == _REFUSED else []
            raise ChapterError("".join(said) or f"{source.name}: its process ended ({process.returncode})")
        echo(f"{source.stem}: done in {time.monotonic() - begin:.0f} s")

    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(run, number, *each) for number, each in enumerate(wanted, 1)]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:  # also if this process is interrupted
            if not all(future.done() for future in futures):
                ended.set()
                for process in list(running):
                    process.terminate()
    for future in futures:
        future.result()


def _start(
    source: Path, output: Path, parameters: Mapping[str, object], *, threads: int
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", __name__, str(source), str(output), json.dumps(dict(parameters))],
        env={"OMP_NUM_THREADS": str(threads)} | os.environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
    )


def _end_with(parent: int) -> None:
    """End this process when that which started it was killed, so that no kernel works for nobody."""
    while os.getppid() == parent:
        time.sleep(_LOOK)
    os.kill(os.getpid(), signal.SIGTERM)


def _main(source: str, output: str, parameters: str) -> int:
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    try:
        execute(source, output, json.loads(parameters), progress=False)
    except (InputError, RunError, OSError) as error:
        print(error)
        return _REFUSED
    except Exception as error:  # a fault of ours: the standard error of this process is not seen
        print(f"{Path(source).name}: {type(error).__name__}: {' '.join(str(error).split())}")
        return _REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
