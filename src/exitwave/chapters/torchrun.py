"""Training in processes that ``torchrun`` has started, on one machine or several.

``exitwave train --devices 4`` starts its processes itself, and those of one machine only. Here they are there
already and each calls :func:`train`; Fabric finds out from ``torchrun``'s environment who is who.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass

import torch

from exitwave.chapters.train import Job, Outcome, Report, _compute, _is_finished
from exitwave.errors import InputError
from exitwave.networks import checkpoints
from exitwave.networks.training import Progress, Training


@dataclass(frozen=True)
class Place:
    """Which of how many processes this is.

    Attributes
    ----------
    rank : int
        From 0, over all machines; the first alone writes and speaks.
    processes : int
        On all machines.
    here : int
        On this machine, one for each of its devices.
    """

    rank: int
    processes: int
    here: int

    @property
    def machines(self) -> int:
        """How many there are, with as many processes each."""
        return self.processes // self.here


def place() -> Place | None:
    """Return the place of this process among those of ``torchrun``; None if it was not started by it."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    return Place(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")))


def train(
    jobs: Collection[Job],
    at: Place,
    *,
    budget_minutes: float | None = None,
    resume: bool = False,
    device: str = "cpu",
    report: Report | None = None,
) -> Outcome:
    """Train one network in all processes; each calls this with the same arguments.

    Runs, data and checkpoints are on a disk that all machines see.

    Parameters
    ----------
    jobs : collection of Job
        One: processes that go from one network to the next do not all end in time together.
    at : Place
    budget_minutes, resume, report
        See :func:`exitwave.chapters.train.train`.
    device : {"cpu", "cuda"}

    Raises
    ------
    InputError
        For several networks, one process a machine, processes that do not share a batch evenly, or a
        checkpoint without `resume`.
    """
    if len(jobs) != 1:
        raise InputError(f"torchrun trains one network, not {len(jobs)}: name it by --run and --seed")
    [job] = jobs
    if at.here < 2 or at.processes % at.here:
        raise InputError(
            f"{at.here} of {at.processes} processes on this machine: start as many on each, two or more"
        )
    batch = getattr(job.point.parameters, "batch", at.processes)
    if batch % at.processes:
        raise InputError(f"a batch of {batch} in {at.processes} processes: use a number that divides it")
    if _is_finished(job):
        return Outcome(job, job.point.load())
    if job.checkpoint.exists() and not resume:
        raise InputError(f"{job.folder} holds a checkpoint of {job.name}: use --resume, or remove it")
    # Fabric is told of devices by the studies, and of machines in this way.
    os.environ["LT_NUM_NODES"] = str(at.machines)
    earlier = checkpoints.seconds(job.checkpoint) if job.checkpoint.exists() else 0.0
    how = Training(
        folder=job.folder,
        resume=resume,
        budget_minutes=None if budget_minutes is None else earlier / 60 + budget_minutes,
        devices=at.here,
        weights=job.weights,
    )

    def tell(progress: Progress) -> None:
        if report is not None:
            report(job, progress)

    _compute(at.rank, tell, job.point, device, how, earlier)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()  # until the first has written: torchrun ends all when one has failed
        torch.distributed.destroy_process_group()
    return Outcome(job, job.point.load() if at.rank == 0 else None)
