"""Bright-field patterns as a function of the coefficients of the projected potential, with derivatives.

Each tilt has a matrix of its own, so that once it is diagonalised two matrix products give the derivative of
its intensity by every coefficient: the whole Jacobian for the price of a gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from exitwave.errors import InputError
from exitwave.optics.scattering import scattering_factor
from exitwave.simulate import lacbed
from exitwave.simulate.lacbed import propagation
from exitwave.simulate.lacbed.potential import relativistic_factor
from exitwave.simulate.lacbed.setup import Setup, prepare
from exitwave.simulate.lacbed.symmetry import orbits
from exitwave.specimens.crystals import Crystal

Centring = Literal["P", "I", "F"]
Symmetry = Literal["2", "4", "2mm", "4mm"]

# Share of the zero-layer beams that a centring leaves.
SHARE: dict[str, float] = {"P": 1.0, "I": 0.5, "F": 0.25}
# Pixels along each side of images of the potential.
PIXELS = 64

# Generators of the point groups of the projection, acting on (x, y) and on (h, k).
_TURN, _QUARTER, _MIRROR = ([[-1, 0], [0, -1]], [[0, -1], [1, 0]], [[1, 0], [0, -1]])
_GENERATORS = {"2": [_TURN], "4": [_QUARTER], "2mm": [_TURN, _MIRROR], "4mm": [_QUARTER, _MIRROR]}
# Unknowns are U_hk over those of one such atom for each cell: its number, and its B in Å².
_UNIT, _UNIT_B = 26, 0.5


@dataclass(frozen=True)
class Known:
    """What is known of crystal and microscope before a pattern is inverted.

    Attributes
    ----------
    lattice_parameter : float
        Of a cubic cell, Å.
    thickness : tuple of float
        One for each pattern, Å.
    geometry : Geometry
        Along [0 0 1].
    limit : float
        Of the beams |g|, 1/Å; coefficients are sought to twice that.
    centring : {"P", "I", "F"}
    symmetry : {"2", "4", "2mm", "4mm"}
        Of the projection about the origin; mirrors along the edges of the cell.
    """

    lattice_parameter: float
    thickness: tuple[float, ...]
    geometry: lacbed.Geometry
    limit: float = 1.6
    centring: Centring = "P"
    symmetry: Symmetry = "4mm"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.lattice_parameter) and self.lattice_parameter > 0):
            raise InputError(f"lattice parameter {self.lattice_parameter:g} Å must be above 0")
        if not self.thickness:
            raise InputError("no thickness given: give one for each pattern, in Å")
        for value in self.thickness:
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"thickness {value:g} Å must be above 0")
        for name, kinds in (("centring", Centring), ("symmetry", Symmetry)):
            if getattr(self, name) not in get_args(kinds):
                raise InputError(f"unknown {name} {getattr(self, name)!r}: use {', '.join(get_args(kinds))}")
        # The shortest beams of P, I and F.
        least = math.sqrt({"P": 1, "I": 2, "F": 4}[self.centring]) / self.lattice_parameter
        if not least <= self.limit < math.inf:
            raise InputError(f"beam limit {self.limit:g} 1/Å leaves one beam: use at least {least:.3g}")


@dataclass(frozen=True)
class Waves:
    """Bloch waves of all tilts: λ (tilt, state), vectors (tilt, beam, state), <0|exp(2πi A t)|0>."""

    values: Tensor
    vectors: Tensor
    amplitude: Tensor


@dataclass(frozen=True)
class Model:
    """Patterns as a function of the unknowns, U_hk in units of ``size``, one for each orbit of (h, k).

    Attributes
    ----------
    known : Known
    setup : Setup
        Of the beams; its coupling is not used.
    table : Tensor of int, shape (h, k)
        One more than the number of the unknown at [h + reach, k + reach]; 0 for none.
    index : Tensor of int, shape (beam, beam)
        The same of each element of the coupling.
    size : Tensor, shape (unknown,)
        1/Å².
    tilts : Tensor, shape (tilt, 2)
        Those that are different, 1/Å.
    share : Tensor, shape (tilt,)
        Of the field.
    membership : Tensor of int, shape (pixels * pixels,)
        Which tilt each pixel is.
    """

    known: Known
    setup: Setup
    table: Tensor
    index: Tensor
    size: Tensor
    tilts: Tensor
    share: Tensor
    membership: Tensor

    def within(self, share: float) -> Tensor:
        """Tell which unknowns lie within a share of the resolution, shape (unknown,)."""
        limit = share * 2 * self.known.limit * self.known.lattice_parameter
        counted = self.unknowns(lambda hkl: torch.as_tensor(np.hypot(hkl[:, 0], hkl[:, 1]) <= limit))
        return counted > 0

    def thinned(self, stride: int) -> Model:
        """Return the model of every so manieth tilt."""
        share = self.share[::stride]
        return replace(self, tilts=self.tilts[::stride], share=share / share.sum())

    def waves(self, unknowns: Tensor) -> Waves:
        """Return the Bloch waves for unknowns of shape (unknown,)."""
        coupling = _with_zero(self.size * unknowns)[self.index]
        problem = replace(self.setup, coupling=coupling).problem(self.tilts, self.known.geometry.wavenumber)
        values, vectors, start = propagation.eigenstates(problem.matrices(), hermitian=True)
        depth = torch.tensor(self.known.thickness, dtype=torch.float64)
        amplitude = propagation.sum_of_waves(values, (start * vectors[:, 0])[:, None], depth)[0]
        return Waves(values, vectors, amplitude)

    def intensity(self, unknowns: Tensor) -> Tensor:
        """Return the patterns, shape (thickness, tilt)."""
        return self.waves(unknowns).amplitude.abs() ** 2

    def jacobian(self, waves: Waves) -> Tensor:
        """Return the derivatives of the patterns, shape (thickness, tilt, unknown).

        From the Fréchet derivative of the exponential (Daleckii and Krein): in the states a, b it multiplies
        the change of the matrix by the divided difference of exp(2πi λ t), which is
        2πi t exp(πi (λ_a + λ_b) t) sinc((λ_a - λ_b) t), also where states are degenerate.
        """
        values, vectors = waves.values, waves.vectors
        apart = values[:, :, None] - values[:, None, :]
        normal = (self.known.geometry.wavenumber**2 - (self.tilts**2).sum(-1)).sqrt()
        found = []
        for i, t in enumerate(self.known.thickness):
            one = torch.exp(1j * math.pi * t * values) * vectors[:, 0]
            two = (4j * math.pi * t * waves.amplitude[i].conj())[:, None] * one
            pair = two.real[:, :, None] * one.real[:, None, :] - two.imag[:, :, None] * one.imag[:, None, :]
            elements = vectors @ (pair * torch.sinc(apart * t)) @ vectors.mT
            total = torch.zeros(len(self.tilts), len(self.size) + 1, dtype=torch.float64)
            total.index_add_(1, self.index.flatten(), elements.flatten(1))
            found.append(total[:, 1:] * self.size / (2 * normal[:, None]))
        return torch.stack(found)

    def image(self, unknowns: Tensor, pixels: int = PIXELS) -> Tensor:
        """Return the potential on one cell, shape (y, x), 1/Å²; pixel i stands at i / pixels."""
        values = _with_zero(self.size * unknowns)[self.table]
        reach = len(values) // 2
        at = torch.arange(-reach, reach + 1) % pixels
        k, h = torch.meshgrid(at, at, indexing="ij")
        grid = torch.zeros(pixels, pixels, dtype=torch.complex128)
        grid.index_put_((k, h), values.T.to(torch.complex128), accumulate=True)
        made: Tensor = torch.fft.ifft2(grid).real * pixels**2
        return made

    def unknowns(self, coefficients: Callable[[np.ndarray], Tensor]) -> Tensor:
        """Return the unknowns of U_hk (1/Å²), a function of an array (n, 3) of hkl; orbits are averaged."""
        reach = len(self.table) // 2
        along = np.arange(-reach, reach + 1)
        h, k = (each.ravel() for each in np.meshgrid(along, along, indexing="ij"))
        given = coefficients(np.stack([h, k, 0 * h], -1)).real.double()
        total, number = (torch.zeros(len(self.size) + 1, dtype=torch.float64) for _ in range(2))
        total.index_add_(0, self.table.flatten(), given)
        number.index_add_(0, self.table.flatten(), torch.ones_like(given))
        return (total / number)[1:] / self.size

    def from_image(self, image: Tensor) -> Tensor:
        """Return the unknowns of an image (y, x), the origin moved to where it is most symmetric."""
        spectrum = torch.fft.fft2(_centred(image.double(), _group(self.known.symmetry))) / image.numel()
        half = (len(image) - 1) // 2

        def coefficients(hkl: np.ndarray) -> Tensor:
            h, k = (torch.as_tensor(hkl[:, i]) for i in (0, 1))
            there = (h.abs() <= half) & (k.abs() <= half)
            found: Tensor = spectrum[k % len(image), h % len(image)] * there
            return found

        return self.unknowns(coefficients)

    def special_positions(self) -> Tensor:
        """Return the unknowns of unit atoms on the special positions, shape (orbit, unknown)."""
        # Axes of a centred cell lie a quarter apart.
        steps = 2 if self.known.centring == "P" else 4
        size = _with_zero(self.size)[self.table].flatten() / SHARE[self.known.centring]
        found: list[Tensor] = []
        for i in range(steps):
            for j in range(steps):

                def wave(hkl: np.ndarray, i: int = i, j: int = j) -> Tensor:
                    return size * torch.as_tensor(np.cos(2 * math.pi * (hkl[:, :2] @ (i, j)) / steps))

                made = self.unknowns(wave)
                if not any(torch.allclose(made, other, atol=1e-9) for other in found):
                    found.append(made)
        return torch.stack(found)


def _with_zero(values: Tensor) -> Tensor:
    return torch.cat([torch.zeros(1, dtype=torch.float64), values])


def _group(symmetry: Symmetry) -> list[np.ndarray]:
    found = {(1, 0, 0, 1): np.eye(2, dtype=int)}
    for _ in range(3):
        for one in list(found.values()):
            for generator in _GENERATORS[symmetry]:
                made = np.array(generator) @ one
                found[tuple(made.ravel().tolist())] = made
    return list(found.values())


def _centred(image: Tensor, group: list[np.ndarray]) -> Tensor:
    """Move an image, by whole pixels, to where it is most like its images under a point group."""
    size = len(image)
    at = np.arange(size)
    y, x = np.meshgrid(at, at, indexing="ij")
    points = np.stack([x, y], -1)
    total = torch.zeros_like(image)
    for operation in group:
        column, row = np.moveaxis(points @ operation % size, -1, 0)  # of the inverse
        turned = image[torch.as_tensor(row), torch.as_tensor(column)]
        alike = torch.fft.ifft2(torch.fft.fft2(turned).conj() * torch.fft.fft2(image)).real
        column, row = np.moveaxis((points - points @ operation.T) % size, -1, 0)
        total += alike[torch.as_tensor(row), torch.as_tensor(column)]
    best = int((total / total.abs().max()).round(decimals=9).argmax())
    return torch.roll(image, (-(best // size), -(best % size)), (0, 1))


def canonical(image: Tensor) -> Tensor:
    """Move an image (y, x) of one cell to the same origin whichever it had: the most symmetric by 4mm.

    Axes of equal symmetry lie multiples of an eighth of the cell apart; of these the one with the highest
    value on it is taken. Glides leave two of a kind, about which the images mirror one another, and one of
    the two hands is taken. The number of pixels is a multiple of 8.
    """
    group, size = _group("4mm"), len(image)
    at = np.arange(size)
    points = np.stack(np.meshgrid(at, at, indexing="xy"), -1)
    turns = [np.moveaxis(points @ operation.T % size, -1, 0) for operation in group]
    along = 2 * math.pi * torch.arange(size, dtype=torch.float64) / size
    one, two = torch.sin(along), torch.sin(2 * along)
    # Glides let U_hk differ from U_h-k for odd h + k only.
    hand = one[:, None] * two + 0.5 * two[:, None] * one

    # Every projection of a cubic crystal along an axis has two-fold axes.
    centred, step = _centred(image.double(), _group("2")), size // 8
    axes = [torch.roll(centred, (step * i, step * j), (0, 1)) for i in range(8) for j in range(8)]
    unlike = [
        sum(float((axis[row, column] - axis).square().mean()) for column, row in turns) for axis in axes
    ]
    # Rounding must not decide between axes of one kind.
    least, most = min(unlike) + 1e-6 * float(centred.var()), 1e-4 * float(centred.abs().max())
    axes = [axis for axis, value in zip(axes, unlike, strict=True) if value <= least]
    highest = max(float(axis[0, 0]) for axis in axes)
    axes = [axis for axis in axes if axis[0, 0] >= highest - most]
    return max(axes, key=lambda axis: float((hand * axis).sum())).to(image.dtype)


def has_symmetry(image: Tensor, symmetry: Symmetry, tolerance: float = 0.02) -> bool:
    """Tell whether an image (y, x) of one cell has a point group about a pixel, to a share of its range."""
    group = _group(symmetry)
    centred = _centred(image.double(), group)
    at = np.arange(len(image))
    points = np.stack(np.meshgrid(at, at, indexing="xy"), -1)
    worst = 0.0
    for operation in group:
        column, row = np.moveaxis(points @ operation % len(image), -1, 0)
        turned = centred[torch.as_tensor(row), torch.as_tensor(column)]
        worst = max(worst, float((turned - centred).abs().max()))
    return worst <= tolerance * float(centred.max() - centred.min())


def model_of(known: Known) -> Model:
    """Return the model of what is known, float64."""
    a, group = known.lattice_parameter, _group(known.symmetry)
    reach = int(2 * known.limit * a + 1e-9)
    h, k = np.meshgrid(np.arange(-reach, reach + 1), np.arange(-reach, reach + 1), indexing="ij")
    lattice = {"P": h == h, "I": (h + k) % 2 == 0, "F": (h % 2 == 0) & (k % 2 == 0)}[known.centring]
    inside = lattice & (np.hypot(h, k) <= 2 * known.limit * a + 1e-9) & (h**2 + k**2 > 0)
    images = [np.stack([h, k], -1) @ w.T for w in group]
    # Shortest first; of each orbit the same member stands for all.
    code = (h**2 + k**2) * (4 * reach + 2) ** 2 + np.max([p @ (2 * reach + 1, 1) for p in images], 0)
    kinds, numbers = np.unique(code[inside], return_inverse=True)
    table = torch.zeros(h.shape, dtype=torch.long)
    table[torch.as_tensor(inside)] = torch.as_tensor(numbers) + 1
    squared = torch.as_tensor(kinds // (4 * reach + 2) ** 2 / a**2)
    atom = scattering_factor(_UNIT, squared) * torch.exp(-0.25 * _UNIT_B * squared)
    size = relativistic_factor(known.geometry.energy) / (math.pi * a**3) * atom

    def number_of(hkl: np.ndarray) -> Tensor:
        return table[tuple(torch.as_tensor(hkl[:, :2].T + reach))].to(torch.complex128)

    blank = Crystal("cell", a * np.eye(3), np.ones(1), np.zeros((1, 3)), np.ones(1), np.zeros(1))
    # In place of the potential the number of each coefficient, of which no beam that is coupled has none.
    setup = prepare(
        blank, known.geometry, lacbed.Beams(limit=known.limit), lacbed.Absorption(), "kirkland",
        coefficients=number_of,
    )  # fmt: skip
    chosen, membership = orbits(known.geometry.pixels, group)
    share = torch.as_tensor(np.bincount(membership) / len(membership))
    tilts = known.geometry.tilts(blank)[torch.as_tensor(chosen)]
    index = setup.coupling.real.round().long()
    return Model(known, setup, table, index, size, tilts, share, torch.as_tensor(membership))
