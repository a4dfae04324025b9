"""Exact patterns of the data set, in shards, and what networks are given of them."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from torch.nn.functional import avg_pool2d

from exitwave import records
from exitwave.errors import InputError
from exitwave.papers.webb2025.parameters import Parameters
from exitwave.simulate import lacbed
from exitwave.specimens.crystals import Crystal, from_table

PIXELS = 128
THICKNESSES = (500.0, 1000.0, 1500.0, 2000.0)
# Fourier coefficients in the projected potential (Eq. 1).
COEFFICIENTS = 2500
# Beams of the converged version: the resolution limit is set for each crystal so that it has about as many.
_CONVERGED_BEAMS, _LIMITS = 500, (2.5, 6.0)


def geometry(parameters: Parameters, crystal: Crystal, pixels: int | None = None) -> lacbed.Geometry:
    """Return the field of tilts of a crystal: half width ``angular_range`` / a."""
    half_angle = parameters.angular_range / crystal.lattice_parameter
    return lacbed.Geometry(parameters.energy, half_angle=half_angle, pixels=pixels or PIXELS)


def beams(parameters: Parameters, crystal: Crystal) -> lacbed.Beams:
    """Return which beams enter for a crystal."""
    return (
        lacbed.Beams("felix") if parameters.version == "felix" else about(_CONVERGED_BEAMS, crystal, _LIMITS)
    )


def about(number: int, crystal: Crystal, limits: tuple[float, float] = (0.0, math.inf)) -> lacbed.Beams:
    """Return a resolution limit, within `limits` (1/Å), with about so many beams of the zero layer."""
    # Centring leaves out one zero-layer beam in two (I) or three in four (F).
    share = {"F": 0.25, "I": 0.5}.get(_centring(crystal), 1.0)
    limit = math.sqrt(number / (math.pi * share)) / crystal.lattice_parameter
    return lacbed.Beams(limit=min(max(limit, limits[0]), limits[1]))


def _centring(crystal: Crystal) -> str:
    lattice = lacbed.structure_factors(crystal, np.array([[h, k, 0] for h in range(6) for k in range(6)]))
    size = lattice.abs().reshape(6, 6)
    odd = size > 1e-6 * size.max()
    h, k = np.meshgrid(range(6), range(6), indexing="ij")
    if not odd[torch.as_tensor((h % 2 == 1) | (k % 2 == 1))].any():
        return "F"
    return "P" if odd[torch.as_tensor((h + k) % 2 == 1)].any() else "I"


def specimen(parameters: Parameters, crystal: Crystal) -> Crystal:
    """Return a crystal as a version of the data set has it: unknown B are 0, or all B lie in 0.5 to 1 Å^2."""
    if parameters.version == "felix":
        return crystal
    return replace(crystal, debye_waller=np.clip(crystal.debye_waller, 0.5, 1.0))


def patterns(parameters: Parameters, device: str = "cpu") -> xr.Dataset:
    """Simulate one shard of the data set; its number is the seed.

    Every cubic [001] zero-layer disk has the symmetry 2mm at least, so that a quadrant holds all of it.

    Returns
    -------
    xarray.Dataset
        ``intensity`` (crystal, thickness, y, x), uint8, the quadrant of smallest y and x times 255 over
        ``scale``, the largest intensity; ``beam_error``; ``beams`` and ``seconds`` (crystal).
    """
    first = parameters.seed * parameters.shard
    chosen = stored_crystals(parameters)[first : first + parameters.shard]
    half = PIXELS // 2
    quadrants = np.zeros((len(chosen), len(THICKNESSES), half, half), np.uint8)
    scale, errors = (np.zeros((len(chosen), len(THICKNESSES))) for _ in range(2))
    entered, seconds = np.zeros(len(chosen), int), np.zeros(len(chosen))
    for i, each in enumerate(chosen):
        crystal = specimen(parameters, each)
        begin = time.perf_counter()
        found = lacbed.simulate(
            crystal, THICKNESSES, geometry(parameters, crystal), beams(parameters, crystal), device=device
        )
        seconds[i] = time.perf_counter() - begin
        quadrant = found.intensity[0, :, :half, :half].cpu().numpy()
        scale[i] = quadrant.max((1, 2))
        quadrants[i] = np.round(255 * quadrant / scale[i][:, None, None])
        entered[i] = found.beams
        errors[i] = np.nan if found.beam_error is None else found.beam_error.numpy()
    per = ("crystal", "thickness")
    made = xr.Dataset(
        {
            "intensity": (
                (*per, "y", "x"),
                quadrants,
                {"units": "1", "long_name": "255 x intensity / scale"},
            ),
            "scale": (per, scale, {"units": "1", "long_name": "largest intensity"}),
            "beam_error": (per, errors, {"units": "1", "long_name": "largest error by the choice of beams"}),
            "beams": ("crystal", entered, {"units": "1", "long_name": "beams of the Bloch waves"}),
            "seconds": ("crystal", seconds, {"units": "s", "long_name": "time of the simulation"}),
        },
        coords={"thickness": ("thickness", list(THICKNESSES), {"units": "Å", "long_name": "thickness"})},
    )
    made["intensity"].encoding = {"zlib": True, "complevel": 6, "shuffle": False}
    return made


@cache
def _crystals_of(path: str, _: int) -> list[Crystal]:
    return from_table(records.load(path).isel(seed=0))


def stored_crystals(parameters: Parameters) -> list[Crystal]:
    """Return the crystals of the stored data set."""
    path = parameters.files()["crystals"]
    return _crystals_of(str(path), path.stat().st_mtime_ns)


def projected_potential(crystal: Crystal, pixels: int, energy: float) -> Tensor:
    """Return Eq. 1 of the paper: U_g of the 2500 shortest (h k 0), 000 left out, on one unit cell.

    The paper's code samples both edges of the cell; here pixel i stands at i / pixels, so that images of
    periodic crystals are periodic.

    Returns
    -------
    Tensor, shape (y, x), float32
        1/Å^2, x along a and y along b.
    """
    reach = int(math.sqrt(COEFFICIENTS / math.pi)) + 2
    index = np.arange(-reach, reach + 1)
    h, k = (each.ravel() for each in np.meshgrid(index, index, indexing="ij"))
    order = np.lexsort((k, h, h**2 + k**2))[1 : COEFFICIENTS + 1]
    h, k = h[order], k[order]
    values = lacbed.potential_coefficients(crystal, np.stack([h, k, 0 * h], -1), energy)
    grid = torch.zeros(pixels, pixels, dtype=torch.complex128)
    grid.index_put_((torch.as_tensor(k % pixels), torch.as_tensor(h % pixels)), values, accumulate=True)
    image: Tensor = torch.fft.ifft2(grid).real * pixels**2
    return image.float()


def whole(quadrant: Tensor) -> Tensor:
    """Return disks from their quadrants, shape (..., y, x)."""
    top = torch.cat([quadrant, quadrant.flip(-1)], -1)
    return torch.cat([top, top.flip(-2)], -2)


@dataclass(frozen=True)
class Samples:
    """What networks learn from.

    Attributes
    ----------
    crystals : list of Crystal
    potentials, patterns : Tensor, shape (sample, 1, y, x), float32
        Each stretched to [0, 1], as the authors' images are.
    thickness : float
        Å.
    """

    crystals: list[Crystal]
    potentials: Tensor
    patterns: Tensor
    thickness: float


def stretched(images: Tensor) -> Tensor:
    """Return images stretched to [0, 1] each; a constant one is 0."""
    low, high = images.amin((-2, -1), keepdim=True), images.amax((-2, -1), keepdim=True)
    return (images - low) / (high - low).clamp_min(1e-12)


def potentials_of(parameters: Parameters, crystals: Sequence[Crystal]) -> Tensor:
    """Return the potentials that networks see, stretched to [0, 1], shape (crystal, 1, y, x), float32."""
    found = [
        projected_potential(specimen(parameters, each), parameters.pixels, parameters.energy)
        for each in crystals
    ]
    return stretched(torch.stack(found)[:, None])


def few_beam_patterns(parameters: Parameters, crystals: Sequence[Crystal]) -> Tensor:
    """Return exact patterns of few beams, stretched to [0, 1], shape (crystal, 1, y, x), float32."""
    found = []
    for crystal in (specimen(parameters, each) for each in crystals):
        field, few = geometry(parameters, crystal, parameters.pixels), about(parameters.few_beams, crystal)
        pattern = lacbed.simulate(crystal, [parameters.thickness], field, few, verify=False)
        found.append(pattern.intensity[0].float().cpu())
    return stretched(torch.stack(found))


def load_samples(parameters: Parameters) -> Samples:
    """Return the stored data set at the size and thickness that the parameters ask for.

    Raises
    ------
    InputError
        If it is not stored, or not as many crystals or not this thickness.
    """
    path = parameters.files()[parameters.version]
    stored = records.load(path)
    if parameters.thickness not in stored["thickness"].values:
        there = ", ".join(f"{each:g}" for each in stored["thickness"].values)
        raise InputError(f"thickness={parameters.thickness:g} Å is not in {path}: use one of {there}")
    stored = stored.sel(thickness=parameters.thickness)
    quadrants = torch.as_tensor(stored["intensity"].values).flatten(0, 1).float()
    if len(quadrants) < parameters.crystals:
        raise InputError(
            f"crystals={parameters.crystals}, but {path} holds {len(quadrants)}: ask for at most as many"
        )
    found = stored_crystals(parameters)[: parameters.crystals]
    disks = whole(quadrants[: len(found)])[:, None]
    disks = avg_pool2d(disks, PIXELS // parameters.pixels) if parameters.pixels < PIXELS else disks
    return Samples(found, potentials_of(parameters, found), stretched(disks), parameters.thickness)
