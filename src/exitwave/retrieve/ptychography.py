r"""Ptychography: object and probe from diffraction patterns at overlapping positions.

:func:`retrieve` descends on the likelihood of the counts through the forward model of
:mod:`exitwave.simulate.scanning`, in minibatches, with one slice or several, one mode of the probe or
several, and positions free or not. It starts from what :func:`begin` makes of a first guess, or from what was
found before. The classical reference is :mod:`exitwave.retrieve.ptychography_epie`.

Some changes no pattern can see: a global phase; a phase ramp over the object with the opposite one over the
probe; both moved together; a factor that one takes from the other. How the detector lies to the scan is no
such thing: :mod:`exitwave.retrieve.ptychography_search` finds it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from exitwave.errors import InputError
from exitwave.optics.grids import frequency_grid, sampling_pair
from exitwave.simulate import scanning

Loss = Literal["poisson", "amplitude"]
Observe = Callable[[int, float], None]

# Added to modelled and measured intensities, over the mean of a pixel: keeps derivatives finite.
_BESIDE = {"poisson": 1e-3, "amplitude": 1e-6}
# Share of the brightest pixel in the curvature of all: what is hardly lit moves little.
_DIM = 0.1
_MOMENTUM = 0.5
# Of the power of the beam, in the modes after the first, at the start.
_INCOHERENT = 0.1
# Share of the epochs after which positions are free.
_STILL = 0.2
# Pixels over which the change of patterns with positions is taken; damping, of the largest curvature.
_NEARBY, _STIFF = 0.05, 0.01
# Patterns whose waves are in memory at once: more do not stay in the cache.
_AT_ONCE = 16


@dataclass(frozen=True)
class Reconstruction:
    """What patterns are explained by.

    Attributes
    ----------
    slices : Tensor, shape (slice, field_y, field_x), complex
        Transmission functions.
    probe : Tensor, shape (mode, y, x), complex
        FFT order, in the unit of the patterns. Retrieved modes are orthogonal, the brightest first.
    positions : Tensor, shape (position, 2)
        (y, x) in the field, Å.
    loss : Tensor, shape (epoch,)
        Mean over each epoch.
    """

    slices: Tensor
    probe: Tensor
    positions: Tensor
    loss: Tensor

    @property
    def powers(self) -> Tensor:
        """Shares of the modes in the beam, shape (mode,)."""
        each = self.probe.abs().square().sum((1, 2))
        return each / each.sum()


def begin(
    measured: Tensor, probe: Tensor, positions: Tensor, *, field: tuple[int, int], slices: int = 1,
    modes: int = 1,
) -> Reconstruction:  # fmt: skip
    """Return an empty object under a guessed probe, from which retrieval can start.

    Parameters
    ----------
    measured : Tensor, shape (position, ky, kx), real
        Patterns, FFT order, in any unit.
    probe : Tensor, shape (ky, kx), complex
        FFT order; it is scaled to the mean sum of the patterns.
    positions : Tensor, shape (position, 2), real
        Å, as :func:`exitwave.simulate.scanning.framed` makes them.
    field : (int, int)
        Pixels (y, x) of the object.
    slices, modes : int
        How many. Modes after the first begin as its derivatives, as those of a source of finite size do,
        with a tenth of the power.

    Returns
    -------
    Reconstruction
        On the device and in the precision of the patterns.

    Raises
    ------
    InputError
        For shapes that do not match, values that are not finite, empty patterns or numbers below 1.
    """
    if slices < 1 or modes < 1:
        raise InputError(f"{slices} slices and {modes} modes: use one or more")
    if probe.ndim != 2 or not probe.is_complex():
        raise InputError(f"a probe of shape {tuple(probe.shape)}, {probe.dtype}: give complex (ky, kx)")
    kind = torch.complex128 if measured.dtype == torch.float64 else torch.complex64
    beam = probe.to(measured.device, kind)
    found = Reconstruction(
        torch.ones(slices, *field, dtype=kind, device=measured.device),
        _derivatives(beam, modes),
        positions.to(measured),
        measured.new_zeros(0),
    )
    check(measured, found)
    power = found.probe.abs().square().sum()
    return replace(found, probe=found.probe * (measured.sum((1, 2)).mean() / power).sqrt())


def amplitude_loss(modelled: Tensor, measured: Tensor, level: Tensor | None = None) -> Tensor:
    """Return four times the squared difference of moduli over the mean intensity, its mean over the pixels.

    As :func:`poisson_loss` where counts are large; where pixels hold less than one electron, it is biased.
    `level` is the mean intensity of a pixel, by default that of `measured`.
    """
    level = measured.mean() if level is None else level
    beside = _BESIDE["amplitude"] * level
    roots = (modelled + beside).sqrt() - (measured.clamp_min(0) + beside).sqrt()
    return 4 * roots.square().mean() / level


def poisson_loss(modelled: Tensor, measured: Tensor, level: Tensor | None = None) -> Tensor:
    """Return the deviance of counts under a Poisson law over their mean, its mean over the pixels.

    2 Σ (m - n + n ln(n/m)) / Σ n, whatever the unit of the counts n: 0 where both agree. `level` is the mean
    of a pixel, by default that of `measured`.
    """
    level = measured.mean() if level is None else level
    beside = _BESIDE["poisson"] * level
    expected, counts = modelled + beside, measured.clamp_min(0) + beside
    return 2 * (expected - counts - counts * (expected / counts).log()).mean() / level


LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "poisson": poisson_loss,
    "amplitude": amplitude_loss,
}


def retrieve(
    measured: Tensor, start: Reconstruction, sampling: float | tuple[float, float], *,
    generator: torch.Generator, loss: Loss = "poisson", epochs: int = 20, batch: int = 64, rate: float = 1.0,
    propagator: Tensor | None = None, free_probe: bool = True, free_positions: bool = False,
    absorbs: bool = False, observe: Observe | None = None,
) -> Reconstruction:  # fmt: skip
    r"""Retrieve object, probe and positions by gradient descent in units of their curvatures.

    Of both losses the curvature is at most that of Σ 4 (\|ψ\| - √n)², that is 8 Σ\|P\|² for the phase of a
    pixel, summed over the minibatch, and 8 for the probe and each of its positions. Divided by it, a gradient
    is a step; there is no rate to be found. Positions take Gauss-Newton steps of their own.
    It is the step of ePIE, for many positions at a time. Momentum of one half, and a cosine by which steps
    fall to nothing, average over the noise.

    Parameters
    ----------
    measured : Tensor, shape (position, ky, kx), real
        Patterns, FFT order.
    start : Reconstruction
        From :func:`begin`, or what was found before.
    sampling : float or (float, float)
        Of object and probe, Å.
    generator : torch.Generator
        Of the CPU; shuffles the positions.
    loss : {"poisson", "amplitude"}
    epochs, batch : int
    rate : float
        Of the first steps, over those that the curvatures tell.
    propagator : Tensor, shape (ky, kx), complex, optional
        From slice to slice.
    free_probe : bool
        Retrieve the probe too; that of an empty object from the second epoch on.
    free_positions : bool
        Retrieve the positions too, after a fifth of the epochs; their mean stays.
    absorbs : bool
        Let the object take electrons away; else only its phase changes.
    observe : callable, optional
        Called with (epoch from 1, mean loss).

    Returns
    -------
    Reconstruction

    Raises
    ------
    InputError
        For shapes that do not match, values that are not finite, empty patterns, or numbers out of range.

    Notes
    -----
    Measured with 1024 patterns of 64 x 64 pixels of a phase object (standard deviation 0.5 rad), the probe
    20 Å out of focus at the start. Error of the object without noise: 0.002 (minibatches of 16) and 0.007
    (of 64) after 15 epochs, 0.011 by Adam (rate 0.02, falling) after 21, 0.0014 by L-BFGS in scaled unknowns
    after 47 evaluations, each of which costs as much as an epoch. With 1000 electrons in each pattern, a
    quarter of one in each pixel, the order of minibatches turns: 0.078 (16) and 0.068 (64), and 0.060 by
    L-BFGS after 89 evaluations; :func:`amplitude_loss` ends at 0.13, whatever the method. An epoch takes
    about 0.3 s on one core.
    """
    check(measured, start)
    if loss not in LOSSES:
        raise InputError(f"unknown loss {loss!r} of ptychography: use {' or '.join(LOSSES)}")
    if epochs < 1 or batch < 1 or not 0 < rate < 2:
        raise InputError(
            f"{epochs} epochs of batches of {batch} at a rate of {rate:g}: use 1 or more, rate below 2"
        )
    free = {"phase": 0.0, "absorption": 0.0 if absorbs else math.inf}
    # The probe waits until there is an object to blame.
    free["probe"] = float(len(start.loss) == 0) if free_probe else math.inf
    free["positions"] = _STILL * epochs if free_positions else math.inf
    descent = _Descent(measured, start, sampling, loss, propagator, free)
    means = []
    for epoch in range(epochs):
        order, total = torch.randperm(len(measured), generator=generator), 0.0
        for i, some in enumerate(_shares(order, batch)):
            done = (epoch + i * batch / len(measured)) / epochs
            total += descent.step(
                some.to(measured.device), epoch, 0.5 * rate * (1 + math.cos(math.pi * done))
            )
        means.append(total / float(measured.sum()))
        if observe is not None:
            observe(epoch + 1, means[-1])
    return descent.found(means)


class _Descent:
    """Unknowns, and steps that lower the loss."""

    def __init__(
        self, measured: Tensor, start: Reconstruction, sampling: float | tuple[float, float], loss: str,
        propagator: Tensor | None, free: dict[str, float],
    ) -> None:  # fmt: skip
        self.measured, self.start, self.sampling, self.loss = measured, start, sampling, LOSSES[loss]
        self.propagator = None if propagator is None else propagator.to(start.probe)
        self.free, self.level = free, measured.mean()
        tiny = torch.finfo(measured.dtype).tiny
        self.unknowns = {
            "phase": start.slices.angle().clone(),
            "absorption": -start.slices.abs().clamp_min(tiny).log(),
            "probe": start.probe.clone(),
            "positions": start.positions.to(measured).clone(),
        }
        self.speeds = {name: torch.zeros_like(each) for name, each in self.unknowns.items()}

    def step(self, some: Tensor, epoch: int, rate: float) -> float:
        """Change what is free by what some positions say; returns their deviance."""
        names = [name for name, first in self.free.items() if epoch >= first]
        for name in names:
            self.unknowns[name].requires_grad_().grad = None
        total = 0.0
        for few in _shares(some, _AT_ONCE):
            modelled = self._patterns(self.unknowns["positions"][few])
            value = self.loss(modelled, self.measured[few], self.level) * modelled.numel() * self.level
            value.backward()  # type: ignore[no-untyped-call]
            total += float(value.detach())
        with torch.no_grad():
            curvatures = self._curvatures(some)
            for name in names:
                gradient, speed = self.unknowns[name].grad, self.speeds[name]
                assert gradient is not None
                if name == "positions":  # each is met once in an epoch
                    change = self._displacements(some, rate * gradient[some])
                    self.unknowns[name][some] += change - change.mean(0)
                else:
                    speed.mul_(_MOMENTUM).sub_(rate * gradient / curvatures[name])
                    self.unknowns[name] += speed
        for each in self.unknowns.values():
            each.requires_grad_(False)
        return total

    def _curvatures(self, some: Tensor) -> dict[str, Tensor]:
        """Return bounds of the second derivatives of the deviance, for each unknown."""
        modes, field = self.unknowns["probe"], self.start.slices.shape[1:]
        seen = scanning.window(self.unknowns["positions"][some], self.sampling, modes.shape[1:], field)
        spectra, lit = torch.fft.fft2(modes, norm="ortho"), []
        for _ in self.start.slices:
            beam = torch.fft.ifft2(spectra, norm="ortho").abs().square().sum(0)
            lit.append(seen.spread(beam, field))
            if self.propagator is not None:
                spectra = spectra * self.propagator
        light = torch.stack(lit) * len(lit)  # slices that agree change the wave together
        light = (1 - _DIM) * light + _DIM * light.amax((1, 2), keepdim=True)
        return {"phase": 8 * light, "absorption": 8 * light, "probe": light.new_tensor(8.0 * len(some))}

    def _displacements(self, some: Tensor, gradient: Tensor) -> Tensor:
        """Return Gauss-Newton steps of some positions, at most a pixel long."""
        shape = (int(self.start.probe.shape[1]), int(self.start.probe.shape[2]))
        pixel = self.measured.new_tensor(sampling_pair(self.sampling))
        power = torch.fft.fft2(self.unknowns["probe"], norm="ortho").abs().square().sum(0)
        waves = frequency_grid(shape, self.sampling, power.device, power.dtype)
        most = torch.stack([((2 * math.pi * k).square() * power).sum() for k in waves])
        steps = []
        for few, slope in zip(_shares(some, _AT_ONCE), _shares(gradient, _AT_ONCE), strict=True):
            here = self.unknowns["positions"][few]
            moduli = [
                self._patterns(here + _NEARBY * pixel * here.new_tensor(to)).sqrt().flatten(1)
                for to in ((0, 0), (1, 0), (0, 1))
            ]
            change = torch.stack([each - moduli[0] for each in moduli[1:]], 1)
            change = change / (_NEARBY * pixel[:, None])
            bend = 8 * (change @ change.mT + _STIFF * most.diag())
            steps.append(-torch.linalg.solve(bend, slope))
        return torch.cat(steps).clamp(-pixel, pixel)

    def _patterns(self, positions: Tensor) -> Tensor:
        thing = torch.polar((-self.unknowns["absorption"]).exp(), self.unknowns["phase"])
        return scanning.patterns(
            thing, self.unknowns["probe"], positions, self.sampling, propagator=self.propagator
        )

    def found(self, means: list[float]) -> Reconstruction:
        """Return the present state."""
        found = self.unknowns
        thing = torch.polar((-found["absorption"]).exp(), found["phase"])
        loss = torch.cat([self.start.loss.to(self.measured), self.measured.new_tensor(means)])
        return Reconstruction(thing, orthogonal(found["probe"]), found["positions"], loss)


def orthogonal(modes: Tensor) -> Tensor:
    """Return orthogonal modes (mode, y, x) that make the same patterns, the brightest one first."""
    if len(modes) == 1:
        return modes
    _, sizes, shapes = torch.linalg.svd(modes.reshape(len(modes), -1), full_matrices=False)
    return torch.as_tensor((sizes[:, None] * shapes).reshape(modes.shape))


def _shares(each: Tensor, size: int) -> list[Tensor]:
    return [each[i : i + size] for i in range(0, len(each), size)]


def _derivatives(beam: Tensor, count: int) -> Tensor:
    """Return a beam (y, x) and orthogonal derivatives of it, of growing order, (mode, y, x)."""
    ky, kx = (
        torch.fft.fftfreq(n, dtype=beam.real.dtype, device=beam.device).reshape(shape)
        for n, shape in zip(beam.shape, ((-1, 1), (1, -1)), strict=True)
    )
    orders = [(n - m, m) for n in range(count) for m in range(n + 1)][:count]
    spectrum = torch.fft.fft2(beam)
    each = torch.stack([torch.fft.ifft2(spectrum * ky**a * kx**b) for a, b in orders])
    basis = torch.linalg.qr(each.reshape(count, -1).T).Q.T.reshape(each.shape)
    powers = torch.full((count,), _INCOHERENT / max(count - 1, 1), dtype=beam.real.dtype, device=beam.device)
    powers[0] = 1.0 - _INCOHERENT * (count > 1)
    # The first one as it was given, its phase too.
    basis = torch.cat([beam[None] / beam.abs().square().sum().sqrt(), basis[1:]])
    return basis * powers.sqrt()[:, None, None]


def check(measured: Tensor, start: Reconstruction) -> None:
    """Raise InputError if patterns cannot be explained from this start."""
    if measured.ndim != 3 or measured.is_complex() or measured.shape[1:] != start.probe.shape[1:]:
        raise InputError(
            f"patterns {tuple(measured.shape)} and a probe {tuple(start.probe.shape[1:])}: give real "
            "(position, ky, kx) and (ky, kx)"
        )
    if len(start.positions) != len(measured):
        raise InputError(f"{len(measured)} patterns at {len(start.positions)} positions: give one for each")
    if not bool(measured.isfinite().all()):
        raise InputError("the patterns hold values that are not finite: mask dead pixels first")
    if not float(measured.sum()) > 0:
        raise InputError("the patterns hold no electrons: give counts, the background taken away")
    least = float(measured.min())
    if least < 0:
        raise InputError(f"a pattern holds {least:g} electrons in a pixel: give counts, clipped at 0")
    power = float(start.probe.abs().square().sum())
    if not (math.isfinite(power) and power > 0):
        raise InputError(f"a probe of intensity {power:g}: give one that is finite and not 0")
