"""Zone axis, tilts of the incident beam, and which beams enter a Bloch-wave calculation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from exitwave import optics
from exitwave.errors import InputError
from exitwave.simulate.lacbed.potential import reciprocal_cell
from exitwave.specimens.crystals import Crystal

_MOST_PIXELS = 4096
Rule = Literal["resolution", "excitation", "felix"]


@dataclass(frozen=True)
class Geometry:
    """Beam energy, direction and the field of tilts.

    Attributes
    ----------
    energy : float
        eV.
    zone : tuple of int
        Zone axis [u v w]; electrons travel along it, and the surface is normal to it.
    half_angle : float, optional
        Half width of the square field of tilts, rad. None: 0.21 / a with the length a of the first
        cell edge in Å (Webb et al. 2025).
    pixels : int
        Along each side; pixel i stands at (i - (pixels - 1) / 2) steps.
    x_direction : tuple of int, optional
        Reciprocal vector (h k l) whose part normal to the zone axis is +x; the shortest one otherwise.
    """

    energy: float = 200e3
    zone: tuple[int, int, int] = (0, 0, 1)
    half_angle: float | None = None
    pixels: int = 128
    x_direction: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.pixels <= _MOST_PIXELS:
            raise InputError(f"pixels={self.pixels} must lie between 1 and {_MOST_PIXELS}")
        if not any(self.zone):
            raise InputError("the zone axis is [0 0 0]: give a direction such as 0 0 1")
        if self.half_angle is not None and not 0 < self.half_angle < 0.5:
            raise InputError(f"half angle {self.half_angle} must lie between 0 and 0.5 rad")
        optics.wavelength(self.energy)

    @property
    def wavenumber(self) -> float:
        """K = 1 / λ, 1/Å."""
        return 1.0 / optics.wavelength(self.energy)

    def angles(self, crystal: Crystal) -> np.ndarray:
        """Return the tilts along one side, rad; sin of the tilt is the in-plane part of K over K."""
        half = self.half_angle
        if half is None:
            half = 0.21 / float(np.linalg.norm(crystal.cell[0]))
        return (np.arange(self.pixels) - (self.pixels - 1) / 2) * (2 * half / self.pixels)

    def tilts(self, crystal: Crystal) -> Tensor:
        """Return the in-plane parts (K_x, K_y) of the incident wave vector at each pixel.

        Returns
        -------
        Tensor, shape (pixels * pixels, 2), float64
            1/Å, row by row: y is the slow axis.
        """
        along = torch.as_tensor(self.wavenumber * np.sin(self.angles(crystal)))
        y, x = torch.meshgrid(along, along, indexing="ij")
        return torch.stack([x.flatten(), y.flatten()], -1)

    def frame(self, crystal: Crystal) -> np.ndarray:
        """Return the unit vectors x, y, z of the pattern as rows; z is the zone axis, x × y = z."""
        z = np.asarray(self.zone, float) @ crystal.cell
        z /= np.linalg.norm(z)
        reciprocal = reciprocal_cell(crystal.cell)
        if self.x_direction is None:
            # Two vectors span the layer; the shorter is within this (Hermite's constant in the plane).
            u = np.asarray(self.zone) @ crystal.cell / math.gcd(*self.zone)
            reach = math.sqrt(2 / math.sqrt(3) * float(np.linalg.norm(u)) / crystal.volume)
            hkl = _zone_layer(crystal, self.zone, limit=reach)[1:]  # without 000
            lengths = np.linalg.norm(hkl @ reciprocal, axis=1).round(9)
            shortest = hkl[lengths == lengths.min()]
            x = max(shortest.tolist()) @ reciprocal
        else:
            x = np.asarray(self.x_direction, float) @ reciprocal
        x = x - (x @ z) * z
        if np.linalg.norm(x) < 1e-9:
            raise InputError(
                f"x direction {self.x_direction} is parallel to the zone axis {self.zone}: change one"
            )
        x /= np.linalg.norm(x)
        return np.stack([x, np.cross(z, x), z])


@dataclass(frozen=True)
class Beams:
    """Which beams enter.

    Attributes
    ----------
    rule : {"resolution", "excitation", "felix"}
        ``resolution``: all |g| <= `limit`. ``excitation``: of those, the ones whose excitation error is
        below `excitation` at some tilt of the field. ``felix``: a pool of the `pool` shortest, of which
        each tilt takes those nearest to the Ewald sphere or strongly coupled until it has `strong`;
        the rest is left out, or, with `bethe`, folded in to second order.
    limit : float
        1/Å.
    excitation : float
        1/Å.
    pool, strong : int, optional
        By default as in the input files of Webb et al. 2025: 225 a - 650 beams between 250 (a < 4 Å) and
        2500 (a > 14 Å), a quarter of them strong.
    bethe : bool
    layers : int
        Highest order of the Laue zones that enter.
    """

    rule: Rule = "resolution"
    limit: float = 3.5
    excitation: float = 0.1
    pool: int | None = None
    strong: int | None = None
    bethe: bool = False
    layers: int = 0

    def __post_init__(self) -> None:
        if self.rule not in ("resolution", "excitation", "felix"):
            raise InputError(f"unknown beam rule {self.rule!r}: use resolution, excitation or felix")
        for name in ("limit", "excitation"):
            if not getattr(self, name) > 0:
                raise InputError(f"beam {name} {getattr(self, name)} must be above 0 1/Å")
        for name in ("pool", "strong"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise InputError(f"beam {name} {getattr(self, name)} must be at least 1")
        if self.layers < 0:
            raise InputError(f"Laue zones up to order {self.layers}: use 0 or more")

    def pool_size(self, a: float) -> int:
        """Return the size of FELIX's pool of beams for a lattice parameter in Å."""
        return self.pool if self.pool is not None else round(min(max(225 * a - 650, 250), 2500))

    def strong_size(self, a: float) -> int:
        """Return the least number of strong beams of FELIX."""
        return self.strong if self.strong is not None else max(self.pool_size(a) // 4, 1)


def _all_within(cell: np.ndarray, limit: float) -> np.ndarray:
    """Return all (h k l) with |g| <= limit."""
    # |h| = |g · a| <= |g| |a|.
    reach = np.floor(limit * np.linalg.norm(cell, axis=1) + 1e-9)
    number = float(np.prod(2.0 * reach + 1))
    if number > 5e7:
        raise InputError(f"{number:.1g} reciprocal vectors to sort: lower the beam limit {limit:g} 1/Å")
    most = reach.astype(int)
    axes = np.meshgrid(*(np.arange(-m, m + 1) for m in most), indexing="ij")
    hkl = np.stack([axis.ravel() for axis in axes], -1)
    lengths = np.linalg.norm(hkl @ reciprocal_cell(cell), axis=1)
    return np.asarray(hkl[lengths <= limit + 1e-9])


def _zone_layer(crystal: Crystal, zone: tuple[int, int, int], limit: float, layers: int = 0) -> np.ndarray:
    """Return (h k l) of the Laue zones up to an order, shortest first, 000 at the head."""
    hkl = _all_within(crystal.cell, limit)
    order = hkl @ (np.asarray(zone) // math.gcd(*zone))
    hkl = hkl[np.abs(order) <= layers]
    lengths = np.linalg.norm(hkl @ reciprocal_cell(crystal.cell), axis=1).round(9)
    return np.asarray(hkl[np.lexsort((*hkl.T, lengths))])


def coupled(coefficients: Tensor) -> np.ndarray:
    """Tell which beams the incident one can reach through nonzero coefficients.

    Centring extinctions part the beams into sets that never exchange intensity.

    Parameters
    ----------
    coefficients : Tensor, shape (beam, beam)
        U_(g-h); the first beam is the incident one.

    Returns
    -------
    ndarray of bool, shape (beam,)
    """
    size = coefficients.abs()
    links = (size > 1e-9 * size.max()).numpy()
    reached = np.zeros(len(links), bool)
    front = reached.copy()
    front[0] = True
    while front.any():
        reached |= front
        front = links[front].any(0) & ~reached
    return reached


def excitation_errors(g: Tensor, tilts: Tensor, wavenumber: float) -> Tensor:
    """Return s = (K² - |K + g|²) / 2K of each beam at each tilt.

    Parameters
    ----------
    g : Tensor, shape (beam, 3)
        In the frame of the pattern, 1/Å.
    tilts : Tensor, shape (tilt, 2)
        1/Å.
    wavenumber : float
        1/Å.

    Returns
    -------
    Tensor, shape (beam, tilt)
        1/Å.
    """
    normal = (wavenumber**2 - (tilts**2).sum(-1)).sqrt()
    return -((g**2).sum(-1)[:, None] + 2 * (g[:, :2] @ tilts.T + g[:, 2:] * normal)) / (2 * wavenumber)


def select_beams(crystal: Crystal, geometry: Geometry, beams: Beams) -> np.ndarray:
    """Return the beams that a rule lets in, before those are left out that nothing couples to.

    Returns
    -------
    ndarray of int, shape (beam, 3)
        Shortest first, 000 at the head.
    """
    if beams.rule == "felix":
        return _zone_layer(crystal, geometry.zone, _pool_limit(crystal, geometry, beams), beams.layers)
    hkl = _zone_layer(crystal, geometry.zone, beams.limit, beams.layers)
    if beams.rule == "resolution":
        return hkl
    g = torch.as_tensor(hkl @ reciprocal_cell(crystal.cell) @ geometry.frame(crystal).T)
    errors = excitation_errors(g, geometry.tilts(crystal), geometry.wavenumber)
    return np.asarray(hkl[(errors.abs().amin(1) <= beams.excitation).numpy()])


def _pool_limit(crystal: Crystal, geometry: Geometry, beams: Beams) -> float:
    """Return a |g| within which FELIX's pool lies, centring extinctions allowed for."""
    u = np.asarray(geometry.zone) @ crystal.cell / math.gcd(*geometry.zone)
    # Area of the layer's cell in reciprocal space: the spacing of layers is 1 / |u|.
    area = float(np.linalg.norm(u)) / crystal.volume
    wanted = beams.pool_size(float(np.linalg.norm(crystal.cell[0])))
    return math.sqrt(4.5 * wanted * area / math.pi)
