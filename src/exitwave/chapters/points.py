"""Points of a study: one set of parameters, computed once, kept in a file.

Sweeps and reproductions are lists of points. Each finished point is written to
``runs/<paper>/points/`` as it arrives, so that a killed run resumes and repeats nothing that
finished; its name carries a hash of the parameters and of the sources that made it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import xarray as xr

from exitwave import files, records
from exitwave.chapters.project import parameters_of, study_of
from exitwave.chapters.sources import source_hash
from exitwave.errors import InputError, RunError
from exitwave.networks.plan import Training
from exitwave.papers.parameters import PaperParameters
from exitwave.project import runs_folder

Report = Callable[["Point", float], None]

# Dask tells its workers to give memory back at once, and an FFT-bound loop then spends most of its time
# on page faults: 0.13 s instead of 0.035 s for a step of gradient retrieval at 512 x 512.
_KEEP_MEMORY = {
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": str(2**30),
    "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": str(2**30),
}


class PointError(RunError):
    """Some points of a study could not be computed; the finished ones are kept."""


@dataclass(frozen=True)
class Point:
    """One call of a study."""

    paper: str
    study: str
    parameters: PaperParameters

    @cached_property
    def source(self) -> str:
        """Hash of the sources that the study depends on."""
        return source_hash(study_of(self.paper, self.study))

    @cached_property
    def key(self) -> str:
        """Hash of everything that determines the result, the content of files that it names included."""
        return self.parameters.key(self.paper, self.study, self.source)

    @property
    def path(self) -> Path:
        """File of the finished point."""
        return runs_folder() / self.paper / "points" / f"{self.study}-{self.key}.nc"

    def load(self) -> xr.Dataset | None:
        """Return the finished result, None if there is none.

        Raises
        ------
        InputError
            If its file is damaged, which is left as it is.
        """
        if not self.path.is_file():
            return None
        try:
            return records.load(self.path)
        except InputError as error:
            told = str(error).removesuffix(records.AGAIN)
            raise InputError(f"{told}: remove it, and the same command computes it again") from error


def compute(
    paper: str,
    study: str,
    values: dict[str, Any],
    device: str,
    threads: int | None,
    *,
    how: Training | None = None,
    earlier: float = 0.0,
) -> xr.Dataset:
    """Call a study; runs on a worker, so it takes plain values.

    Parameters
    ----------
    paper, study : str
    values : dict
        The parameters.
    device : str
    threads : int, optional
        As many as torch takes if not given.
    how : Training, optional
        For a study that trains a network.
    earlier : float
        Seconds that earlier parts of a continued training took.

    Returns
    -------
    xarray.Dataset
        The study's result with the provenance that a worker can know.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    parameters = parameters_of(paper).at(**values)
    function = study_of(paper, study)
    start = time.perf_counter()
    result = function(parameters, device=device, **({} if how is None else {"how": how}))
    made = records.provenance(
        f"{paper} {study}",
        paper=paper,
        scale=parameters.scale,
        parameters=values,
        seed=parameters.seed,
        device=_device_name(device, 1 if how is None else how.devices),
        seconds=earlier + time.perf_counter() - start,
        study=study,
        source=source_hash(function),
    )
    return records.with_provenance(result, made)


def _device_name(device: str, devices: int) -> str:
    name = device if device == "cpu" else torch.cuda.get_device_name(device)
    return name if devices == 1 else f"{devices} x {name}"


def finish(point: Point, result: xr.Dataset) -> None:
    """Keep the result of a point, in its file and the journal."""
    records.save(result, point.path)
    _note(point, result)


def _note(point: Point, result: xr.Dataset) -> None:
    """Add a finished point to the journal, in which each appears once, whoever else writes there."""
    line = {"point": point.key, "study": point.study, "seconds": records.provenance_of(result).get("seconds")}
    with open(point.path.parent / "journal.jsonl", "a+", encoding="utf-8") as file, files.one_at_a_time(file):
        file.seek(0)
        known = file.read()
        if f'"{point.key}"' not in known:
            torn = "" if known.endswith("\n") or not known else "\n"  # by a kill, or a full disk
            file.write(torn + json.dumps(line) + "\n")


@contextmanager
def dask_client(workers: int | None, scheduler: str | None) -> Iterator[Any]:
    """Connect to a scheduler, or start a local cluster of one-thread workers.

    Raises
    ------
    InputError
        If the scheduler does not answer within 10 s.
    """
    import dask
    import distributed
    from distributed.comm.addressing import get_address_host

    # dask.distributed has no type hints.
    Client: Any = distributed.Client
    LocalCluster: Any = distributed.LocalCluster
    if scheduler is not None:
        try:
            # Of an address that it cannot read, a client would fail, and stay open as that of the process.
            get_address_host(scheduler)
            client = Client(scheduler, timeout="10s")
        except (OSError, TimeoutError, ValueError) as error:
            raise InputError(
                f"no Dask scheduler answers at {scheduler}: start one with `dask scheduler`"
            ) from error
        with client:
            yield client
        return
    # A free port for the scheduler's web server: two sweeps at a time would warn of the usual one.
    quiet = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
    with (
        dask.config.set(_KEEP_MEMORY),
        LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, scheduler_kwargs=quiet, silence_logs=50
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def run_points(
    points: Sequence[Point],
    *,
    device: str = "cpu",
    workers: int | None = None,
    scheduler: str | None = None,
    in_process: bool = False,
    report: Report | None = None,
) -> list[xr.Dataset]:
    """Compute points that are not finished yet and return the results of all, in order.

    Parameters
    ----------
    points : sequence of Point
    device : str
        Torch device of the study.
    workers : int, optional
        One-thread workers of the local cluster; as many as there are cores if not given.
    scheduler : str, optional
        Address of a Dask scheduler to use instead.
    in_process : bool
        Compute one after the other in this process, with all threads, without Dask.
    report : callable
        Called with (point, seconds) for each point as it is finished or found finished (0 s).

    Raises
    ------
    PointError
        After all other points are done, if some failed; the message shows the first.
    """
    results: dict[str, xr.Dataset] = {}
    waiting: dict[str, Point] = {}
    for point in points:
        found = point.load()
        if found is None:
            waiting[point.key] = point
        else:
            results[point.key] = found
            _note(point, found)  # a sweep killed between file and journal left it out
            if report is not None:
                report(point, 0.0)
    failures: list[tuple[Point, BaseException]] = []
    if waiting:
        compute_all = _serially(device) if in_process else _on_dask(device, workers, scheduler)
        for key, outcome in compute_all(waiting):
            if isinstance(outcome, BaseException):
                failures.append((waiting[key], outcome))
                continue
            finish(waiting[key], outcome)
            results[key] = outcome
            if report is not None:
                report(waiting[key], records.provenance_of(outcome)["seconds"])
    if failures:
        point, error = failures[0]
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise PointError(
            f"{len(failures)} of {len(points)} points failed, the finished ones are kept; "
            f"first {point.paper} {point.study} seed {point.parameters.seed}: {reason}"
        ) from error
    return [results[point.key] for point in points]


Outcomes = Iterator[tuple[str, xr.Dataset | BaseException]]


def _serially(device: str) -> Callable[[dict[str, Point]], Outcomes]:
    def run(waiting: dict[str, Point]) -> Outcomes:
        for key, point in waiting.items():
            try:
                yield key, compute(point.paper, point.study, point.parameters.model_dump(), device, None)
            except Exception as error:
                yield key, error

    return run


def _on_dask(
    device: str, workers: int | None, scheduler: str | None
) -> Callable[[dict[str, Point]], Outcomes]:
    def run(waiting: dict[str, Point]) -> Outcomes:
        import distributed

        as_completed: Any = distributed.as_completed
        with dask_client(workers, scheduler) as client:
            futures = {
                client.submit(
                    compute, p.paper, p.study, p.parameters.model_dump(), device, 1, key=f"{p.study}-{key}"
                ): key
                for key, p in waiting.items()
            }
            for future in as_completed(futures):
                error = future.exception()
                yield futures[future], future.result() if error is None else error
                future.release()

    return run
