"""Exact patterns of the data set, in shards, and what networks are given of them."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from torch.nn.functional import avg_pool2d

from exitwave import records
from exitwave.papers.webb2025.parameters import Parameters
from exitwave.project import specimen_file
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
    if parameters.version == "felix":
        return lacbed.Beams("felix")
    # Centring leaves out one zero-layer beam in two (I) or three in four (F).
    share = {"F": 0.25, "I": 0.5}.get(_centring(crystal), 1.0)
    limit = math.sqrt(_CONVERGED_BEAMS / (math.pi * share)) / crystal.lattice_parameter
    return lacbed.Beams(limit=min(max(limit, _LIMITS[0]), _LIMITS[1]))


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
    chosen = stored_crystals()[parameters.seed * parameters.shard : (parameters.seed + 1) * parameters.shard]
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


def stored_crystals() -> list[Crystal]:
    """Return the crystals of the stored data set."""
    path = specimen_file("webb2025", "crystals")
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
    beam_error : Tensor, shape (sample,)
        Of the pattern, over its largest intensity.
    """

    crystals: list[Crystal]
    potentials: Tensor
    patterns: Tensor
    beam_error: Tensor


def stretched(images: Tensor) -> Tensor:
    """Return images stretched to [0, 1] each; a constant one is 0."""
    low, high = images.amin((-2, -1), keepdim=True), images.amax((-2, -1), keepdim=True)
    return (images - low) / (high - low).clamp_min(1e-12)


def load_samples(parameters: Parameters) -> Samples:
    """Return the stored data set at the size and thickness that the parameters ask for.

    Raises
    ------
    InputError
        If it is not stored.
    """
    stored = records.load(specimen_file("webb2025", parameters.version)).sel(thickness=parameters.thickness)
    quadrants = torch.as_tensor(stored["intensity"].values).flatten(0, 1).float()
    count = min(parameters.crystals, len(quadrants))
    found = stored_crystals()[:count]
    disks = whole(quadrants[:count])[:, None]
    disks = avg_pool2d(disks, PIXELS // parameters.pixels) if parameters.pixels < PIXELS else disks
    potentials = torch.stack(
        [projected_potential(specimen(parameters, c), parameters.pixels, parameters.energy) for c in found]
    )[:, None]
    error = torch.as_tensor((stored["beam_error"] / stored["scale"]).values).flatten()[:count]
    return Samples(found, stretched(potentials), stretched(disks), error.float())
