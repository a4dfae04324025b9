"""Every way to the phase: what it is given, and what it makes of the same electrons."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeVar

import torch
from torch import Tensor

from exitwave.optics import interaction_constant
from exitwave.papers.comparison import exposures, images, scans
from exitwave.papers.comparison.exposures import Hologram, Series
from exitwave.papers.comparison.judge import Score, judge
from exitwave.papers.comparison.parameters import Parameters

Family = Literal["images", "hologram", "scan"]
Result = TypeVar("Result")


# What each method is given; what they are called and must know is in words.py.
METHODS: dict[str, Family] = {
    "single": "images", "moduli": "images", "eleven": "images", "likelihood": "images",
    "network": "images", "refined": "images", "holography": "hologram", "mass": "scan",
    "side_band": "scan", "parallax": "scan", "ptychography": "scan", "scanner": "scan",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Recorded:
    """All that is recorded of a specimen, each with as many electrons; each is recorded when first asked for.

    Attributes
    ----------
    parameters : Parameters
    """

    parameters: Parameters

    def _generator(self, number: int) -> torch.Generator:
        return torch.Generator().manual_seed(100 * self.parameters.seed + number)

    @cached_property
    def one(self) -> Series:
        """One image."""
        return self._series(1, 1)

    @cached_property
    def three(self) -> Series:
        """Three images."""
        return self._series(3, 2)

    @cached_property
    def eleven(self) -> Series:
        """Eleven images."""
        return self._series(11, 3)

    @cached_property
    def slow(self) -> Series:
        """Three images at the energy of the network's training."""
        return self._series(3, 4, self.parameters.network_energy)

    def _series(self, count: int, number: int, energy: float | None = None) -> Series:
        foci = exposures.foci(self.parameters, count)
        return exposures.series(self.parameters, foci, self._generator(number), energy)

    @cached_property
    def hologram(self) -> Hologram:
        """A hologram."""
        return exposures.hologram(self.parameters, self._generator(5))

    @cached_property
    def focused(self) -> Tensor:
        """Counts of a scan in focus."""
        return exposures.counted(self.parameters, 0.0, self._generator(6))

    @cached_property
    def blurred(self) -> Tensor:
        """Counts of a scan out of focus."""
        return exposures.counted(self.parameters, self.parameters.blurred, self._generator(7))

    def electrons(self, name: str) -> float:
        """Return how many electrons per Å² came through the specimen for a method, as they were counted."""
        if name == "holography":
            # Of two waves one passed it.
            return float(self.hologram.intensity.mean() - 1) * self.parameters.dose
        if METHODS[name] == "scan":
            counts = self.blurred if name == "parallax" else self.focused
            return float(counts.sum(dtype=torch.float64)) / self.parameters.box**2
        taken = self.taken(name)
        return float(taken.images.mean()) * taken.dose * len(taken.images)

    def taken(self, name: str) -> Series:
        """Return the images of a method."""
        return {"single": self.one, "eleven": self.eleven, "network": self.slow, "refined": self.slow}.get(
            name, self.three
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Found:
    """What a method makes of what was recorded, and how many seconds of the processor that took."""

    score: Score
    seconds: float


def retrieved(recorded: Recorded, name: str) -> Found:
    """Return what a method makes of what was recorded."""
    parameters = recorded.parameters
    family = METHODS[name]
    if family == "scan":
        way, counts = _SCANS[name], recorded.blurred if name == "parallax" else recorded.focused
        phase, seconds = _timed(lambda: way(parameters, counts))
        return Found(judge(parameters, _potential(phase, parameters.energy)), seconds)
    if family == "hologram":
        taken = recorded.hologram
        wave, seconds = _timed(lambda: images.by_fringes(parameters, taken))
        return Found(_judged(parameters, wave, parameters.energy), seconds)
    return _of_images(recorded, name, recorded.taken(name))


def _of_images(recorded: Recorded, name: str, taken: Series) -> Found:
    parameters, energy = recorded.parameters, taken.lens.energy
    if name in ("moduli", "eleven"):
        # Gerchberg and Saxton's method stops where it serves it best, which only the truth tells.
        waves, seconds = _timed(lambda: images.by_moduli(parameters, taken))
        scores = [_judged(parameters, each, energy) for each in waves]
        return Found(min(scores, key=lambda each: each.error), seconds)
    if name == "refined":
        wave, seconds = _timed(
            lambda: images.refined(parameters, taken, images.by_network(parameters, taken))
        )
    elif name == "network":
        wave, seconds = _timed(lambda: images.by_network(parameters, taken))
    else:
        wave, seconds = _timed(lambda: images.by_likelihood(parameters, taken))
    return Found(_judged(parameters, wave, energy), seconds)


def untrained(recorded: Recorded) -> Score:
    """Return what the network of three images makes of those at an energy that it has not learned from."""
    wave = images.by_network(recorded.parameters, recorded.three)
    return _judged(recorded.parameters, wave, recorded.parameters.energy)


def slower(recorded: Recorded) -> Score:
    """Return what the likelihood makes of the images that the network is given, of slower electrons."""
    wave = images.by_likelihood(recorded.parameters, recorded.slow)
    return _judged(recorded.parameters, wave, recorded.slow.lens.energy)


def ideal(parameters: Parameters) -> Score:
    """Return what the phase of the true wave has wrong: that of more than one plane is no projection."""
    return _judged(parameters, exposures.wave(parameters, parameters.energy), parameters.energy)


def _judged(parameters: Parameters, wave: Tensor, energy: float) -> Score:
    return judge(parameters, _potential(images.phase(parameters, wave, energy), energy))


def _potential(phase: Tensor, energy: float) -> Tensor:
    found: Tensor = phase / float(interaction_constant(energy))
    return found


def _timed(way: Callable[[], Result]) -> tuple[Result, float]:
    # Of the processor, in one thread: what else the machine does hardly counts.
    begin = time.process_time()
    found = way()
    return found, time.process_time() - begin


_SCANS: dict[str, Callable[[Parameters, Tensor], Tensor]] = {
    "mass": scans.centre_of_mass, "side_band": scans.side_band, "parallax": scans.aligned,
    "ptychography": scans.ptychographic, "scanner": scans.networked,
}  # fmt: skip
