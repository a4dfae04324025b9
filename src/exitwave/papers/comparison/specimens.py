"""The specimen that every method is shown, and the projected potential that each ought to find."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from exitwave.errors import InputError
from exitwave.optics import frequency_grid
from exitwave.papers.comparison.parameters import Parameters
from exitwave.records import Array
from exitwave.simulate.exit_waves import Multislice, projected_potential
from exitwave.specimens import flakes
from exitwave.specimens.layers import mos2

# Highest frequency at which phases are compared, over that of the grid of the scan.
BAND = 0.97
# Pixel of the potential and of exit waves, Å.
FINE = 0.05
# Of 2H-MoS2, Å: from layer to layer. Layers of a thick specimen.
_LAYER, THICK = 6.15, 4
# From the last atom to the plane of exit waves, as where the networks of focal series learned them, Å.
BEYOND = 2.0
# Distance of graphene from the nearest atoms, Å.
_GAP = 3.3
# Of a sulphur column that is inside of the flake: molybdenum atoms around it, no further than this, Å.
_AROUND, _BOND = 3, 2.2
# Vacancies are this far apart at least, Å; flakes that are drawn until one has room for them.
_APART, _DRAWS = 4.0, 50


@dataclass(frozen=True, eq=False)
class Specimen:
    """Atoms in a periodic box, and where its sulphur columns are.

    Attributes
    ----------
    numbers : int ndarray, shape (atom,)
    positions : ndarray, shape (atom, 3)
        x, y, z, Å; the first atom that the beam meets is at z = 0.
    whole, broken : ndarray, shape (column, 2)
        (y, x), Å, of sulphur columns: those with both atoms, and those that lack one, inside of the flake.
    """

    numbers: Array
    positions: Array
    whole: Array
    broken: Array

    @property
    def depth(self) -> float:
        """From the first atom to the last, Å."""
        return float(self.positions[:, 2].max())


def make(parameters: Parameters) -> Specimen:
    """Return the flake of a seed: free, on graphene, or several layers thick.

    Raises
    ------
    InputError
        If the flake has too few sulphur columns for its vacancies.
    """
    generator = np.random.default_rng(8000 + parameters.seed)
    size = parameters.box, parameters.box
    for _ in range(_DRAWS):
        flake = flakes.nanoflake(mos2(), generator, size=size, diameter=(parameters.diameter,) * 2)
        columns, inner = _sulphur(flake)
        gone = inner[_spread_out(columns[inner], parameters.vacancies, generator)]
        if len(gone) == parameters.vacancies:
            break
    else:
        raise InputError(
            f"no flake of {parameters.diameter:g} Å has room for vacancies={parameters.vacancies} inside: "
            "make it larger, diameter"
        )
    # The atom on the far side.
    lacking = [
        max(np.flatnonzero(_at(flake.positions, place)), key=lambda i: flake.positions[i, 2])
        for place in columns[gone]
    ]
    if parameters.kind == "supported":
        flake = flakes.on_graphene(flake, generator, distance=(_GAP, _GAP))
    kept = np.delete(np.arange(len(flake.numbers)), lacking)
    numbers, positions = flake.numbers[kept], flake.positions[kept].copy()
    if parameters.trouble == "thick":
        numbers, positions = _stacked(numbers, positions)
    positions[:, 2] -= positions[:, 2].min()
    return Specimen(numbers, positions, np.delete(columns, gone, 0), columns[gone])


def _sulphur(flake: flakes.Flake) -> tuple[Array, Array]:
    """Return (y, x) of sulphur columns, shape (column, 2), and which of them have all their neighbours."""
    places = flake.positions[:, 1::-1]
    sulphur = np.unique(np.round(places[flake.numbers == 16], 3), axis=0)
    apart = np.linalg.norm(sulphur[:, None] - places[flake.numbers == 42], axis=-1)
    return sulphur, np.flatnonzero((apart < _BOND).sum(1) >= _AROUND)


def _spread_out(places: Array, count: int, generator: np.random.Generator) -> Array:
    """Choose up to so many places that are no neighbours, by their indices."""
    chosen: list[int] = []
    for i in generator.permutation(len(places)):
        if all(np.linalg.norm(places[i] - places[j]) > _APART for j in chosen):
            chosen.append(int(i))
    return np.array(chosen[:count], int)


def _at(positions: Array, place: Array) -> Array:
    found: Array = np.linalg.norm(positions[:, 1::-1] - place, axis=1) < flakes.SAME_COLUMN
    return found


def _stacked(numbers: Array, positions: Array) -> tuple[Array, Array]:
    """Return several layers, each second one turned by half a turn, so that Mo is above S2 as in 2H."""
    across = positions[:, :2]
    middle = across.mean(0)
    metal = across[numbers == 42]
    metal = metal[np.linalg.norm(metal - middle, axis=1).argmin()]
    light = across[numbers == 16]
    light = light[np.linalg.norm(light - metal, axis=1).argmin()]
    turned = positions.copy()
    turned[:, :2] = metal + light - across
    layers = [(positions, turned)[i % 2] + [0, 0, i * _LAYER] for i in range(THICK)]
    return np.tile(numbers, THICK), np.concatenate(layers)


def grid_of(parameters: Parameters, energy: float, sampling: float = FINE) -> Multislice:
    """Return how waves of a box are computed."""
    count = round(parameters.box / sampling)
    return Multislice(
        energy, parameters.box / count, (count, count), displacement=parameters.displacement, beyond=BEYOND
    )


@lru_cache(maxsize=4)
def _truth(parameters: Parameters) -> Tensor:
    specimen, how = make(parameters), grid_of(parameters, parameters.energy)
    places = torch.as_tensor(specimen.positions[:, :2].copy())
    return in_band(projected_potential(specimen.numbers, places, how), parameters)


def truth(parameters: Parameters) -> Tensor:
    """Return the projected potential of all atoms in the common band, shape (scan, scan), V Å, of mean 0."""
    plain = type(parameters).at(parameters.scale)
    changes = ("kind", "trouble", "box", "diameter", "vacancies", "displacement", "scan", "seed")
    return _truth(plain.changed(**{name: getattr(parameters, name) for name in changes}))


def in_band(image: Tensor, parameters: Parameters) -> Tensor:
    """Return an image of the periodic box in the common band and on the common grid, of mean 0.

    Parameters
    ----------
    image : Tensor, shape (y, x)
        At least as fine as the grid.
    parameters : Parameters

    Returns
    -------
    Tensor, shape (scan, scan), float64
    """
    count, fine = parameters.scan, image.shape[0]
    spectrum = torch.fft.fft2(image.double())
    most = (count - 1) // 2
    kept = torch.arange(-most, most + 1)
    rows = spectrum.index_select(0, kept % fine).index_select(1, kept % fine)
    shared = spectrum.new_zeros(count, count)
    shared[(kept % count)[:, None], kept % count] = rows
    shared = shared * inside(parameters)
    shared[0, 0] = 0
    made: Tensor = torch.fft.ifft2(shared).real * (count / fine) ** 2
    return made


def inside(parameters: Parameters) -> Tensor:
    """Return which frequencies of the common grid are in the common band, shape (scan, scan)."""
    ky, kx = frequency_grid((parameters.scan, parameters.scan), parameters.step)
    return torch.hypot(ky, kx) <= highest(parameters)


def highest(parameters: Parameters) -> float:
    """Return the end of the common band, 1/Å."""
    return BAND / (2 * parameters.step)
