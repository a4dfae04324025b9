"""The exit wave of a crystal from one amplitude, through a potential that is the same in every slice.

One modulus says nothing of the phase, but not every wave is the exit wave of a crystal. Here the wave must
be what multislice makes of real columns along the beam: energy, thickness and pixel size are known, the
potential V(y, x) is not, and L-BFGS moves it until the modulus of its wave is the one that was measured.
Three priors stand behind it:

- the potential is a sum of blobs of positive weight, whose spectrum 1 / (1 + k²/k0²) is that of a screened
  charge (Wentzel), so that it is smooth as well;
- it has no frequencies beyond the band of the wave, whose edge makes a blob ring a little below zero;
- few steps are taken from a potential that is small and flat: what a crystal has besides columns (layers of
  atoms, tilt) would be forced into the columns by many.

The crop is no period of anything: the potential goes on in a margin around it, where nothing is measured, and
beyond that the field wraps around, which thick crystals feel. The problem is not convex; where it ends
depends on where it starts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from exitwave.errors import InputError
from exitwave.optics import frequency_grid, interaction_constant, propagator
from exitwave.optics.grids import checked
from exitwave.simulate.exit_waves import BAND

# Frequency k0 where a blob has half its weight, 1/Å: between those of light atoms and of heavy ones.
_HALF = 2.0
# Scale of the potential, V, and the square root, over that of it, of the potential to start from.
_UNIT, _FIRST, _NOISE = 10.0, 0.3, 0.01
# Steps that fit the complex wave of a start, and pairs that L-BFGS remembers.
_FOLLOW, _MEMORY = 25, 10
# Modulus below which its gradient is rounded off, over the mean.
_TINY = 1e-4


@dataclass(frozen=True)
class Fit:
    """A potential and its wave.

    Attributes
    ----------
    potential : Tensor, shape (y, x)
        Mean along the beam, V; without the margin.
    wave : Tensor, shape (y, x), complex
        On the scale of the amplitude; its global phase means nothing.
    residual : float
        Root mean square difference of the moduli over that of the amplitude.
    course : Tensor, shape (evaluation,)
        The residual of each evaluation while the amplitude was fitted.
    """

    potential: Tensor
    wave: Tensor
    residual: float
    course: Tensor


@dataclass(frozen=True)
class Columns:
    """Multislice through one potential for all slices, around a crop.

    Attributes
    ----------
    pixels : (int, int)
        Of the crop (y, x).
    sampling : float
        Å.
    energy : float
        eV.
    depth : float
        Å.
    thickness : float
        Of a slice, Å, at most but for rounding.
    margin : float
        Around the crop at least, Å.
    beyond : float
        Vacuum behind the crystal, Å.
    """

    pixels: tuple[int, int]
    sampling: float
    energy: float
    depth: float
    thickness: float = 8.0
    margin: float = 2.0
    beyond: float = 0.0

    def __post_init__(self) -> None:
        checked(self.sampling, "pixel size (Å)", positive=True)
        checked(self.energy, "beam energy (eV)", positive=True)
        checked(self.depth, "depth (Å)", positive=True)
        checked(self.thickness, "slice thickness (Å)", positive=True)
        checked(self.margin, "margin (Å)", least=0.0)
        checked(self.beyond, "vacuum behind the crystal (Å)", least=0.0)

    @property
    def slices(self) -> int:
        """How many there are."""
        return max(1, round(self.depth / self.thickness))

    @property
    def shape(self) -> tuple[int, int]:
        """Pixels (y, x) with the margin: sizes that are fast to transform."""
        from scipy.fft import next_fast_len

        wanted = (pixels + 2 * math.ceil(self.margin / self.sampling) for pixels in self.pixels)
        y, x = (int(next_fast_len(each)) for each in wanted)
        return y, x

    def cropped(self, values: Tensor) -> Tensor:
        """Return what of (..., y, x) lies in the crop."""
        rows, columns = (
            slice((n - p) // 2, (n - p) // 2 + p) for n, p in zip(self.shape, self.pixels, strict=True)
        )
        return values[..., rows, columns]

    def squared(self, like: Tensor) -> Tensor:
        """Return squared frequencies, 1/Å², infinite outside the band."""
        ky, kx = frequency_grid(self.shape, self.sampling, like.device)
        found = ky**2 + kx**2
        limit = BAND / (2 * self.sampling)
        return torch.where(found <= limit**2, found, math.inf).to(like.dtype)

    def blobs(self, weights: Tensor) -> Tensor:
        """Return the potential of blobs of given weights at the pixels, both (y, x)."""
        spectrum = torch.fft.fft2(weights) / (1 + self.squared(weights) / _HALF**2)
        potential: Tensor = torch.fft.ifft2(spectrum).real
        return potential

    def wave(self, potential: Tensor) -> Tensor:
        """Return the exit wave (y, x) of a potential (y, x), V, both with the margin, for a plane wave of 1.

        Slices stand in the middle of what they hold.
        """
        step = self.depth / self.slices
        phase = interaction_constant(self.energy) * step * potential
        transmission = torch.polar(torch.ones_like(phase), phase)
        inside = self.squared(potential).isfinite()
        along, last = (
            inside
            * propagator(
                self.shape, self.sampling, distance, self.energy,
                dtype=transmission.dtype, device=potential.device,
            )
            for distance in (step, step / 2 + self.beyond)
        )  # fmt: skip
        wave = transmission
        for _ in range(self.slices - 1):
            wave = torch.fft.ifft2(torch.fft.fft2(wave) * along) * transmission
        made: Tensor = torch.fft.ifft2(torch.fft.fft2(wave) * last)
        return made


def amplitude_residual(wave: Tensor, amplitude: Tensor) -> tuple[Tensor, Tensor]:
    """Return how far the modulus of a wave is from an amplitude at the best scale, and that scale.

    Σ (c |ψ| - a)² / Σ a², whose root is the residual of :class:`Fit`.
    """
    modulus = (wave.real.square() + wave.imag.square() + _TINY**2).sqrt()
    scale = (modulus * amplitude).sum() / modulus.square().sum()
    return (scale * modulus - amplitude).square().sum() / amplitude.square().sum(), scale


def wave_misfit(wave: Tensor, other: Tensor) -> Tensor:
    """Return 1 - |<ψ, φ>|² / |ψ|² |φ|²: how far apart waves are, whatever their scale and global phase."""
    overlap = (other.conj() * wave).sum().abs().square()
    return 1 - overlap / (wave.abs().square().sum() * other.abs().square().sum())


def fit_potential(
    amplitude: Tensor, *, energy: float, depth: float, sampling: float, start: Tensor | None = None,
    slice_thickness: float = 8.0, margin: float = 2.0, beyond: float = 0.0, iterations: int = 25,
    trust: float = 0.0, generator: torch.Generator | None = None,
) -> Fit:  # fmt: skip
    """Fit the potential of columns to the amplitude of their exit wave.

    Parameters
    ----------
    amplitude : Tensor, shape (y, x), float32 or float64
        Modulus of the wave, in any unit: the scale is free.
    energy : float
        eV.
    depth : float
        Of the crystal, Å.
    sampling : float
        Pixel size, Å.
    start : Tensor, shape (y, x), complex, optional
        A wave that the potential is fitted to first, up to scale and global phase; by default the start is
        flat.
    slice_thickness, margin, beyond : float
        Å; see :class:`Columns`.
    iterations : int
        Steps that fit the amplitude.
    trust : float
        Weight that the misfit to `start` keeps while the amplitude is fitted; with 0 its phase is dropped.
    generator : torch.Generator, optional
        Draws the hundredth of noise on the flat start; by default one of seed 0.

    Returns
    -------
    Fit

    Raises
    ------
    InputError
        If the amplitude is negative, zero or not finite, if the start is of another shape, not complex or
        not finite, or a number is out of its range.
    """
    _check(amplitude, start, iterations, trust)
    columns = Columns(
        (amplitude.shape[0], amplitude.shape[1]), sampling, energy, depth, slice_thickness, margin, beyond
    )
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    noise = torch.randn(columns.shape, generator=generator, dtype=amplitude.dtype).to(amplitude.device)
    roots = (_FIRST + _NOISE * noise).requires_grad_()
    course: list[float] = []

    def follow(wave: Tensor) -> Tensor:
        return wave_misfit(wave, target)

    def explain(wave: Tensor) -> Tensor:
        squared, _ = amplitude_residual(wave, amplitude)
        course.append(math.sqrt(float(squared.detach())))
        return squared + trust * follow(wave) if trust else squared

    if start is not None:
        target = start.to(torch.promote_types(amplitude.dtype, torch.complex64))
        _minimise(columns, roots, follow, _FOLLOW)
    _minimise(columns, roots, explain, iterations)
    with torch.no_grad():
        potential = columns.blobs(_UNIT * roots.square())
        wave = columns.cropped(columns.wave(potential))
        squared, scale = amplitude_residual(wave, amplitude)
    return Fit(columns.cropped(potential), scale * wave, math.sqrt(float(squared)), torch.tensor(course))


def _minimise(
    columns: Columns, roots: Tensor, objective: Callable[[Tensor], Tensor], iterations: int
) -> None:
    """Move the square roots of the weights of the blobs, in place, to lower what is asked of the wave."""
    optimiser = torch.optim.LBFGS(
        [roots], max_iter=iterations, max_eval=2 * iterations, history_size=_MEMORY,
        line_search_fn="strong_wolfe", tolerance_grad=0.0, tolerance_change=0.0,
    )  # fmt: skip

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = objective(columns.cropped(columns.wave(columns.blobs(_UNIT * roots.square()))))
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(closure)  # type: ignore[no-untyped-call]


def _check(amplitude: Tensor, start: Tensor | None, iterations: int, trust: float) -> None:
    if amplitude.ndim != 2 or not amplitude.is_floating_point():
        raise InputError(
            f"an amplitude of shape {tuple(amplitude.shape)}, {amplitude.dtype}: give real (y, x)"
        )
    checked(amplitude, "amplitude", least=0.0)
    if not bool(amplitude.any()):
        raise InputError("the amplitude is 0 everywhere: give the modulus of a wave")
    if start is not None:
        if start.shape != amplitude.shape or not start.is_complex():
            raise InputError(
                f"a start of shape {tuple(start.shape)}, {start.dtype}: give complex {tuple(amplitude.shape)}"
            )
        if not bool(torch.isfinite(start).all()):
            raise InputError("the start is not finite: give amplitude times exp(i phase)")
    if iterations < 1:
        raise InputError(f"{iterations} iterations of the potential: use at least 1")
    if not (math.isfinite(trust) and trust >= 0) or (trust > 0 and start is None):
        raise InputError(f"trust {trust:g} in the start: use 0 or more, and above 0 only with a start")
