"""What a training is asked to do, where it is kept, and what it tells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from exitwave.errors import InputError
from exitwave.networks.engine import Precision


@dataclass(frozen=True)
class Options:
    """How a task is trained.

    Attributes
    ----------
    epochs, batch : int
        An incomplete batch at the end of an epoch is left out.
    precision : {"auto", "32", "bf16"}
        ``bf16`` is mixed: weights and losses stay float32. ``auto`` takes it where the device computes in
        it, else 32; the curves say which it was.
    average : float
        Decay per step of the averaged weights, 0 to have none; below 1.
    device : str
    devices : int
        Processes, each on a device and with its share of the batch.
    budget_minutes : float, optional
        Stop after so long, earlier parts of a continued run included.
    checkpoint_minutes : float
        Time between checkpoints; 0 writes one after each step.
    validate_every : int
        Epochs between validations; the last epoch is always validated. 0 for none.
    """

    epochs: int
    batch: int = 16
    precision: Precision | Literal["auto"] = "auto"
    average: float = 0.0
    device: str = "cpu"
    devices: int = 1
    budget_minutes: float | None = None
    checkpoint_minutes: float = 2.0
    validate_every: int = 1

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "devices"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} {getattr(self, name)} of a training: use 1 or more")
        if self.precision not in ("auto", "32", "bf16"):
            raise InputError(f"unknown precision {self.precision!r}: use auto, 32 or bf16")
        if not 0 <= self.average < 1:
            raise InputError(f"decay {self.average} of the averaged weights: use 0 for none, or 0.999")
        if self.batch % self.devices:
            raise InputError(f"a batch of {self.batch} on {self.devices} devices: use a multiple of these")
        if self.budget_minutes is not None and not self.budget_minutes > 0:
            raise InputError(f"a budget of {self.budget_minutes} minutes: use a positive number")
        if not self.checkpoint_minutes >= 0 or self.validate_every < 0:
            raise InputError("minutes between checkpoints and epochs between validations are not negative")


@dataclass
class Curves:
    """What a training was like, in plain lists.

    Attributes
    ----------
    epoch, step, seconds : list
        Of each finished epoch: its number from 1, the steps and the seconds since the beginning.
    losses : dict of str to list of float
        Means over each finished epoch.
    validated : list of int
        The epochs after which there was a validation.
    validation : dict of str to list of float
    fraction : float
        Share of the planned steps that were made.
    precision : {"32", "bf16"}
    """

    epoch: list[int] = field(default_factory=list)
    step: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    losses: dict[str, list[float]] = field(default_factory=dict)
    validated: list[int] = field(default_factory=list)
    validation: dict[str, list[float]] = field(default_factory=dict)
    fraction: float = 0.0
    precision: Precision = "32"

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain numbers, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Progress:
    """Where a training is after a step: the epoch from 1, steps of all, seconds, and the curves so far."""

    epoch: int
    step: int
    steps: int
    seconds: float
    curves: Curves


@dataclass(frozen=True)
class Training:
    """How a study that trains a network is to do it; what a whole training ends with does not depend on it.

    Such a study takes it as ``how``, and its result has the scalar ``fraction``: the share of the planned
    steps that were made.

    Attributes
    ----------
    folder : Path, optional
        Where the checkpoint is kept; without it there is none.
    resume : bool
        Go on from the checkpoint, if there is one.
    budget_minutes : float, optional
        As in :class:`Options`: earlier parts of a continued training included.
    devices : int
        Processes, each on a device; they are running when the study is called.
    report : callable, optional
        Called after each step.
    weights : Path, optional
        Where the trained weights are written, by :func:`exitwave.networks.weights.save_weights`.
    """

    folder: Path | None = None
    resume: bool = False
    budget_minutes: float | None = None
    devices: int = 1
    report: Callable[[Progress], None] | None = None
    weights: Path | None = None
