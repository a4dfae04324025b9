"""`exitwave train`: the networks behind a paper's claims, trained in parts if need be."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import xarray as xr

from exitwave import files
from exitwave.chapters.points import Point, compute, finish
from exitwave.chapters.project import parameters_of, trains
from exitwave.errors import InputError, RunError
from exitwave.networks import checkpoints
from exitwave.networks.processes import Tell, launch
from exitwave.networks.training import CHECKPOINT, Progress, Training
from exitwave.papers.verdicts import load_claims
from exitwave.project import runs_folder


@dataclass(frozen=True)
class Job:
    """One network: a run of the claims with one seed."""

    run: str
    point: Point

    @property
    def name(self) -> str:
        """What it is called in a message."""
        return f"{self.run} seed {self.point.parameters.seed}"

    @property
    def folder(self) -> Path:
        """Where its checkpoint and weights are."""
        return runs_folder() / self.point.paper / "training" / self.point.key

    @property
    def checkpoint(self) -> Path:
        """Its checkpoint, which need not exist."""
        return self.folder / CHECKPOINT

    @property
    def weights(self) -> Path:
        """Its weights, which need not exist."""
        return self.folder / "weights.safetensors"


@dataclass(frozen=True)
class Outcome:
    """What there is of a training: its point, if it has been judged, and what went wrong, if anything did."""

    job: Job
    result: xr.Dataset | None
    failure: str | None = None

    @property
    def fraction(self) -> float:
        """Share of the planned steps after which it was judged."""
        if self.result is None:
            return 0.0
        return float(self.result["fraction"]) if "fraction" in self.result else 1.0


Report = Callable[[Job, Progress], None]


def points_of(
    paper: str,
    scale: str,
    *,
    runs: Collection[str] = (),
    seeds: Collection[int] = (),
    changes: Mapping[str, Any] | None = None,
) -> list[tuple[str, Point]]:
    """Return run and point of each training of a paper, whether or not the files they read are there.

    Parameters
    ----------
    paper, scale : str
    runs, seeds : collection
        Choose among them; all if empty.
    changes : mapping, optional
        Parameters that are to differ from those of the runs.

    Raises
    ------
    InputError
        For an unknown paper, scale, run, seed or parameter, or a paper that trains nothing.
    """
    found = {name: run for name, run in load_claims(paper).runs.items() if trains(paper, run.study)}
    if not found:
        raise InputError(f"{paper} has no networks to train: its runs are computed by `exitwave reproduce`")
    for name in runs:
        if name not in found:
            raise InputError(f"{paper} trains no run {name!r}: use one of {', '.join(found)}")
    chosen = {name: run for name, run in found.items() if name in runs or not runs}
    known = range(max(run.seeds for run in chosen.values()))
    for seed in seeds:
        if seed not in known:
            raise InputError(
                f"no seed {seed} of {', '.join(chosen)}: use one of {', '.join(map(str, known))}"
            )
    for name in ("scale", "seed"):
        if name in (changes or {}):
            raise InputError(f"parameter {name!r} of a training: give it as --{name}")
    model = parameters_of(paper)
    return [
        (name, Point(paper, run.study, model.at(scale, **(run.settings | dict(changes or {})), seed=seed)))
        for name, run in chosen.items()
        for seed in range(run.seeds)
        if seed in seeds or not seeds
    ]


def runs_with(paper: str, scale: str, wanted: Mapping[str, Any], runs: Collection[str] = ()) -> list[str]:
    """Return the trainings of a paper whose parameters have some values, in the order of its claims.yml.

    Parameters
    ----------
    paper, scale : str
    wanted : mapping
        Values by the names of parameters.
    runs : collection
        Choose among them; all if empty.

    Raises
    ------
    InputError
        As for :func:`points_of`, or if no training has these values.
    """
    points = dict(points_of(paper, scale, runs=runs))
    found = {
        name: {each: getattr(point.parameters, each) for each in wanted} for name, point in points.items()
    }
    chosen = [name for name, values in found.items() if values == wanted]
    if not chosen:
        asked, known = (
            ", ".join(dict.fromkeys(" ".join(f"{k}={v}" for k, v in each.items()) for each in some))
            for some in ([wanted], found.values())
        )
        raise InputError(f"{paper} trains nothing with {asked}: there is {known}; or change a run with -p")
    return chosen


def jobs_of(paper: str, scale: str, **choice: Any) -> list[Job]:
    """Return the trainings of a paper, in the order of its claims.yml, seeds within.

    Parameters
    ----------
    paper, scale, **choice
        See :func:`points_of`.

    Raises
    ------
    InputError
        As there, and if a file that a network learns from is missing.
    """
    jobs: dict[str, Job] = {}
    for name, point in points_of(paper, scale, **choice):
        jobs.setdefault(point.key, Job(name, point))  # changes may make two runs the same
    return list(jobs.values())


def train(
    jobs: Collection[Job],
    *,
    budget_minutes: float | None = None,
    resume: bool = False,
    device: str = "cpu",
    devices: int = 1,
    report: Report | None = None,
) -> list[Outcome]:
    """Train networks one after the other, leaving out those that are finished.

    One that ``exitwave reproduce`` has computed, which leaves no weights, is trained again if these are to be
    released.

    Each keeps ``checkpoint.safetensors`` and ``weights.safetensors`` in its folder, and its result where
    ``exitwave reproduce`` looks for it, whether the training is whole or its budget ended before.

    Parameters
    ----------
    jobs : collection of Job
        See :func:`jobs_of`.
    budget_minutes : float, optional
        For all together: each has an equal share of what is left when it begins. The last network is
        judged after that time.
    resume : bool
        Go on from the checkpoints that there are.
    device : str
    devices : int
        How many to train each network on.
    report : callable, optional
        Called with the job and its progress after each step.

    Returns
    -------
    list of Outcome
        One for each job. A training that failed, as by a loss that is not finite, leaves the others alone.

    Raises
    ------
    InputError
        For a budget that is not positive, or a checkpoint without `resume`.
    """
    if budget_minutes is not None and not 0 < budget_minutes < math.inf:
        raise InputError(f"a budget of {budget_minutes} minutes: use a positive number")
    waiting = [job for job in jobs if not _is_finished(job)]
    for job in waiting:
        if job.checkpoint.exists() and not resume:
            raise InputError(f"{job.folder} holds a checkpoint of {job.name}: use --resume, or remove it")
    end = None if budget_minutes is None else time.monotonic() + 60 * budget_minutes
    failures: dict[str, str] = {}
    for number, job in enumerate(waiting):
        share = None if end is None else (end - time.monotonic()) / (len(waiting) - number)
        if share is not None and share <= 0:
            break
        try:
            _train(job, share, resume, device, devices, report)
        except RunError as error:
            failures[job.point.key] = str(error)
    return [Outcome(job, job.point.load(), failures.get(job.point.key)) for job in jobs]


def _is_finished(job: Job) -> bool:
    """Tell whether a network is trained, and has left its weights if they are to be released."""
    released = job.point.parameters.seed < load_claims(job.point.paper).runs[job.run].release
    return Outcome(job, job.point.load()).fraction == 1 and (job.weights.is_file() or not released)


def _train(
    job: Job, seconds: float | None, resume: bool, device: str, devices: int, report: Report | None
) -> None:
    """Train one network for some seconds more and judge it; RunError if another process does."""
    busy = f"another process trains {job.name} in {job.folder}: wait until it has ended"
    with files.alone(job.folder, busy):
        _train_alone(job, seconds, resume, device, devices, report)


def _train_alone(
    job: Job, seconds: float | None, resume: bool, device: str, devices: int, report: Report | None
) -> None:
    earlier = checkpoints.seconds(job.checkpoint) if job.checkpoint.exists() else 0.0
    how = Training(
        folder=job.folder,
        resume=resume,
        budget_minutes=None if seconds is None else (earlier + seconds) / 60,
        devices=devices,
        weights=job.weights,
    )

    def tell(progress: Progress) -> None:
        if report is not None:
            report(job, progress)

    if devices == 1:
        _compute(0, tell, job.point, device, how, earlier)
    else:
        launch(_compute, devices, job.point, device, how, earlier, hear=tell)


def _compute(rank: int, tell: Tell, point: Point, device: str, how: Training, earlier: float) -> None:
    """Compute a point in one of several processes, of which the first alone writes."""
    how = replace(how, report=tell) if rank == 0 else replace(how, weights=None)
    values = point.parameters.model_dump()
    result = compute(point.paper, point.study, values, device, None, how=how, earlier=earlier)
    if rank == 0:
        finish(point, result)
