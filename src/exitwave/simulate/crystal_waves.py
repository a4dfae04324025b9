"""Exit waves of thick crystals by multislice, many at once.

A crystal repeats across the beam and along it: its wave is a sum of beams, computed on one cell, and the
slices of one period serve any depth. Grids follow the axes of the cell. A small tilt moves each slice against
the one before, which the propagator does (Kirkland 2010, Sec. 6.9; foreshortening is left out).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from exitwave.errors import InputError
from exitwave.optics import interaction_constant, wavelength
from exitwave.optics.grids import checked, sampling_pair
from exitwave.optics.scattering import truncated_factor
from exitwave.simulate.exit_waves import BAND, POTENTIAL
from exitwave.specimens.zones import Slab

# Sizes of grids: few, so that many cells share one, and fast to transform.
_SIZES = (16, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256, 320, 384, 512)
# Pixels of the waves that go through their crystals together.
_PIXELS = {"cpu": 60_000, "cuda": 4_000_000}


@dataclass(frozen=True)
class Exposure:
    """How the beam meets a crystal.

    Attributes
    ----------
    energy : float
        eV.
    depth : float
        Of the crystal, Å; the nearest whole number of slices is taken.
    tilt : (float, float)
        Slope (y, x) of the zone axis, rad: how far a column moves along y and x for each Å down the beam.
    limit : float
        Highest frequency of the wave, 1/Å.
    """

    energy: float
    depth: float
    tilt: tuple[float, float] = (0.0, 0.0)
    limit: float = 2.0

    def __post_init__(self) -> None:
        checked(self.energy, "beam energy (eV)", positive=True)
        checked(self.depth, "depth (Å)", positive=True)
        checked(self.limit, "frequency limit (1/Å)", positive=True)
        if not all(math.isfinite(each) and abs(each) < 0.2 for each in self.tilt):
            raise InputError(f"tilt {self.tilt} rad: give two small slopes, below 0.2")


@dataclass(frozen=True)
class Beams:
    """A periodic wave as the sum of its beams.

    Attributes
    ----------
    amplitudes : Tensor, shape (beam,), complex
        Of the incident wave's.
    frequencies : Tensor, shape (beam, 2), float64
        (y, x), 1/Å.
    """

    amplitudes: Tensor
    frequencies: Tensor

    def to(self, device: str | torch.device) -> Beams:
        """Return the wave on a device."""
        return Beams(self.amplitudes.to(device), self.frequencies.to(device))

    def image(
        self, pixels: int | tuple[int, int], sampling: float | tuple[float, float], *,
        rotation: float = 0.0, origin: tuple[float, float] = (0.0, 0.0),
    ) -> Tensor:  # fmt: skip
        """Return the wave on a grid.

        Parameters
        ----------
        pixels : int or (int, int)
            (y, x).
        sampling : float or (float, float)
            Å.
        rotation : float
            Of the crystal about the beam, from x to y, rad.
        origin : (float, float)
            Where the first pixel is (y, x), Å, in the frame of the image.

        Returns
        -------
        Tensor, shape (y, x), complex
        """
        shape = (pixels, pixels) if isinstance(pixels, int) else pixels
        steps, (ky, kx) = sampling_pair(sampling), self.frequencies.T
        turn, turned = math.cos(rotation), math.sin(rotation)
        along = [turn * ky + turned * kx, turn * kx - turned * ky]
        waves = []
        for count, step, first, k in zip(shape, steps, origin, along, strict=True):
            places = first + step * torch.arange(count, dtype=k.dtype, device=k.device)
            phase = torch.remainder(2 * math.pi * places[:, None] * k, 2 * math.pi)
            waves.append(torch.polar(torch.ones_like(phase), phase).to(self.amplitudes.dtype))
        return (waves[0] * self.amplitudes) @ waves[1].T


def simulate(
    slabs: Sequence[Slab], exposures: Sequence[Exposure], *, thickness: float = 1.0, beyond: float = 3.0,
    terms: int = 3, dtype: torch.dtype = torch.complex64, device: str | torch.device = "cpu",
) -> list[Beams]:  # fmt: skip
    """Return the exit waves of crystals, one for each exposure.

    Parameters
    ----------
    slabs : sequence of Slab
    exposures : sequence of Exposure
        One for each slab.
    thickness : float
        Greatest extent of a slice, Å.
    beyond : float
        Vacuum behind the crystal, Å.
    terms : int
        Lorentzians and Gaussians of Kirkland's potentials, 3 or fewer.
    dtype : torch.complex64 or torch.complex128
    device : str or torch.device

    Returns
    -------
    list of Beams
        On the CPU, for an incident plane wave of amplitude 1.

    Raises
    ------
    InputError
        For lists of different lengths, a bad thickness, an unknown element, or a cell that is too large.
    """
    if len(slabs) != len(exposures):
        raise InputError(f"{len(slabs)} crystals and {len(exposures)} exposures: give one for each")
    if not (math.isfinite(thickness) and thickness > 0):
        raise InputError(f"slices of {thickness:g} Å: use a positive thickness")
    shapes = [shape_of(slab, how.limit) for slab, how in zip(slabs, exposures, strict=True)]
    found: list[Beams | None] = [None] * len(slabs)
    # Neighbours in depth share a batch, so that few wait for the thickest.
    order = sorted(range(len(slabs)), key=lambda i: (shapes[i], -exposures[i].depth))
    most = _PIXELS.get(torch.device(device).type, _PIXELS["cpu"])
    while order:
        shape = shapes[order[0]]
        same = [i for i in order if shapes[i] == shape][: max(1, most // (shape[0] * shape[1]))]
        order = order[len(same) :]
        stacks = [
            _stack(slabs[i], exposures[i], shape, thickness, beyond, terms, dtype, device) for i in same
        ]
        for i, spectrum, stack in zip(same, _through(stacks), stacks, strict=True):
            kept = spectrum[stack.inside].cpu()
            found[i] = Beams(kept, stack.frequencies[stack.inside].cpu())
    return [each for each in found if each is not None]


def shape_of(slab: Slab, limit: float) -> tuple[int, int]:
    """Return the pixels (y, x) that waves with frequencies up to a limit need.

    Raises
    ------
    InputError
        If a grid would be too large.
    """
    lengths = np.linalg.norm(slab.cell, axis=1)[::-1]
    least = 2 * limit * lengths / BAND
    if least.max() > _SIZES[-1]:
        raise InputError(
            f"{slab.name}: a cell {lengths.max():.4g} Å long needs {least.max():.0f} pixels at {limit:g} /Å, "
            f"above {_SIZES[-1]}: lower the limit"
        )
    ny, nx = (next(size for size in _SIZES if size >= each) for each in least)
    return ny, nx


@dataclass(frozen=True)
class _Stack:
    """What a wave goes through: transmissions of a period, propagator of a slice, steps, and the last one."""

    transmission: Tensor
    propagator: Tensor
    steps: int
    last: Tensor
    inside: Tensor
    frequencies: Tensor


def _stack(
    slab: Slab, how: Exposure, shape: tuple[int, int], thickness: float, beyond: float, terms: int,
    dtype: torch.dtype, device: str | torch.device,
) -> _Stack:  # fmt: skip
    count = max(1, math.ceil(slab.period / thickness - 1e-9))
    step = slab.period / count
    steps = max(1, round(how.depth / step))
    frequencies = frequencies_of(slab, shape, device)
    squared = frequencies.square().sum(-1)
    inside = squared <= how.limit**2
    phase = interaction_constant(how.energy) * potentials(slab, shape, count, terms, device)
    slant = frequencies @ torch.tensor(how.tilt, dtype=torch.float64, device=device)
    propagator, last = (
        _polar(-math.pi * wavelength(how.energy) * squared * z + 2 * math.pi * slant * move, dtype) * inside
        for z, move in ((step, step), (beyond - step / 2, -steps * step))
    )
    return _Stack(_polar(phase, dtype), propagator, steps, last, inside, frequencies)


def _polar(phase: Tensor, dtype: torch.dtype) -> Tensor:
    turned = torch.remainder(phase, 2 * math.pi)
    return torch.polar(torch.ones_like(turned), turned).to(dtype)


def frequencies_of(slab: Slab, shape: tuple[int, int], device: str | torch.device = "cpu") -> Tensor:
    """Return the frequencies (y, x) of a grid along the axes of a cell, shape (y, x, 2), 1/Å, FFT order."""
    reciprocal = torch.tensor(np.linalg.inv(slab.cell).T.copy(), device=device)  # rows: of the two axes
    k, h = (torch.fft.fftfreq(n, 1 / n, dtype=torch.float64, device=device) for n in shape)
    cartesian: Tensor = h[None, :, None] * reciprocal[0] + k[:, None, None] * reciprocal[1]
    return cartesian.flip(-1)


def potentials(
    slab: Slab, shape: tuple[int, int], count: int, terms: int = 3, device: str | torch.device = "cpu"
) -> Tensor:
    """Return the projected potentials of the slices of one period, shape (slice, y, x), float64, V Å.

    Sites that are partly occupied have the mean potential of what is there.
    """
    squared = frequencies_of(slab, shape, device).square().sum(-1)
    index = np.floor(slab.fractions[:, 2] * count + 1e-6).astype(int) % count
    total = torch.zeros(count, *shape, dtype=torch.complex128, device=device)
    k, h = (torch.fft.fftfreq(n, 1 / n, dtype=torch.float64, device=device) for n in shape)
    places = torch.tensor(slab.fractions[:, :2], device=device)
    weights = torch.tensor(slab.occupancies, device=device)
    for number in np.unique(slab.numbers):
        factor = truncated_factor(int(number), squared, terms)
        for i in np.unique(index[slab.numbers == number]):
            mine = torch.as_tensor((slab.numbers == number) & (index == i), device=device)
            columns = _waves(k, places[mine, 1]) * weights[mine]
            total[int(i)] += factor * (columns @ _waves(h, places[mine, 0]).T)
    projected: Tensor = torch.fft.ifft2(total).real
    return projected * (math.prod(shape) * POTENTIAL / slab.area)


def _waves(index: Tensor, fractions: Tensor) -> Tensor:
    phase = -2 * math.pi * index[:, None] * fractions
    return torch.polar(torch.ones_like(phase), phase)


def _through(stacks: Sequence[_Stack]) -> list[Tensor]:
    """Send plane waves through stacks of one shape; return their spectra, over that of the plane wave."""
    order = sorted(range(len(stacks)), key=lambda i: -stacks[i].steps)
    chosen = [stacks[i] for i in order]
    counts = torch.tensor([len(each.transmission) for each in chosen])
    first = counts.cumsum(0) - counts
    steps = [each.steps for each in chosen]
    turns = first + torch.arange(steps[0])[:, None] % counts
    spectra = multislice(
        torch.cat([each.transmission for each in chosen]),
        turns,
        torch.stack([each.propagator for each in chosen]),
        steps,
    )
    found = dict(zip(order, spectra, strict=True))
    return [found[i] * stacks[i].last for i in range(len(stacks))]


def multislice(
    transmissions: Tensor, turns: Tensor, propagators: Tensor, steps: Sequence[int]
) -> list[Tensor]:
    """Send plane waves through slices, all at once; differentiable in transmissions and propagators.

    Parameters
    ----------
    transmissions : Tensor, shape (slice, y, x), complex
        Of all slices of all samples.
    turns : Tensor of int, shape (step, sample)
        Which slice comes next in each sample.
    propagators : Tensor, shape (sample, y, x), complex
        From slice to slice, with the band limit.
    steps : sequence of int
        How many slices there are in each sample, in decreasing order.

    Returns
    -------
    list of Tensor, shape (y, x), complex
        Spectra behind the last slice and its propagator, in FFT order; that of the plane wave is 1 at 0.
    """
    turns = turns.to(transmissions.device)
    done: list[Tensor] = []
    wave = torch.ones_like(propagators)
    spectrum = torch.fft.fft2(wave, norm="forward")
    for i in range(steps[0]):
        active = sum(each > i for each in steps)
        done = [*spectrum[active:], *done]
        wave = torch.fft.ifft2(spectrum[:active], norm="forward") * transmissions[turns[i, :active]]
        spectrum = torch.fft.fft2(wave, norm="forward") * propagators[:active]
    return [*spectrum, *done]
