"""The three data sets: flakes, their tables, and the exit waves that networks learn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from exitwave import records
from exitwave.errors import InputError
from exitwave.papers.larsen2022.parameters import Parameters
from exitwave.simulate import exit_waves
from exitwave.specimens import flakes, layers
from exitwave.specimens.flakes import Flake
from exitwave.specimens.layers import Layer

# What is drawn is the same for the same parameters, whatever the seed of a network.
_SEED = 2022
# Flakes of each of many materials (Sec. 2).
_OF_EACH = 2


def specimens(parameters: Parameters, device: str = "cpu") -> xr.Dataset:  # noqa: ARG001
    """Make the flakes of a data set, those to learn from first.

    Of many materials two flakes each are made, and all materials of the same elements are on one side.

    Returns
    -------
    xarray.Dataset
        One row for each atom (``atom``): ``flake_index``, ``number``, ``position`` (Å, x, y, z), ``column``,
        ``support``; one for each flake (``flake``): ``name``, ``seen``.
    """
    generator = np.random.default_rng(_SEED)
    count = round(parameters.seen * parameters.flakes)
    if parameters.data == "materials":
        chosen, number = _materials(parameters, generator)
    else:
        chosen, number = [layers.mos2()] * parameters.flakes, count
    made = [_flake(parameters, layer, generator) for layer in chosen]
    return to_table(made, seen=number)


def _materials(parameters: Parameters, generator: np.random.Generator) -> tuple[list[Layer], int]:
    """Return a layer for each flake, and how many of them are to learn from."""
    wanted = -(-parameters.flakes // _OF_EACH)
    every = layers.known_layers()
    if wanted > len(every):
        try:
            every = [*every, *layers.relatives(generator, wanted - len(every))]
        except InputError as error:
            raise InputError(f"flakes={parameters.flakes} of {wanted} materials: {error}") from None
    every = [every[i] for i in np.sort(generator.permutation(len(every))[:wanted])]
    first, second = layers.split_by_elements(every, parameters.seen, generator)
    order = [i for side in (first, second) for i in side for _ in range(_OF_EACH)]
    return [every[i] for i in order[: parameters.flakes]], _OF_EACH * len(first)


def _flake(parameters: Parameters, layer: Layer, generator: np.random.Generator) -> Flake:
    made = flakes.nanoflake(
        layer, generator, size=(parameters.box,) * 2, diameter=(parameters.smallest, parameters.largest)
    )
    if parameters.data == "supported":
        made = flakes.on_graphene(made, generator)
    made = flakes.damaged(made, generator, vacancies=parameters.vacancies, holes=parameters.holes)
    made = flakes.disordered(made, generator, spread=parameters.disorder)
    return flakes.tilted(made, generator, largest=parameters.tilt)


def to_table(made: Sequence[Flake], seen: int) -> xr.Dataset:
    """Return a table of flakes, of which the first `seen` are to learn from (see :func:`specimens`)."""
    owner = np.repeat(np.arange(len(made)), [len(each.numbers) for each in made])

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(each, name) for each in made])

    def variable(values: np.ndarray, dims: tuple[str, ...], long_name: str, units: str = "1") -> xr.Variable:
        return xr.Variable(dims, values, {"units": units, "long_name": long_name})

    names = np.array([each.name for each in made], dtype=object)
    return xr.Dataset(
        {
            "flake_index": variable(owner.astype(np.int32), ("atom",), "index of the flake of an atom"),
            "number": variable(joined("numbers").astype(np.int16), ("atom",), "atomic number"),
            "position": variable(
                joined("positions").astype(np.float32), ("atom", "axis"), "position x, y, z", "Å"
            ),
            "column": variable(joined("column").astype(np.int16), ("atom",), "atomic column in its flake"),
            "support": variable(joined("support").astype(np.int8), ("atom",), "1 for atoms of the support"),
            "name": variable(names, ("flake",), "material"),
            "seen": variable((np.arange(len(made)) < seen).astype(np.int8), ("flake",), "1 to learn from"),
            "box": variable(np.array(made[0].size[0]), (), "side of the box", "Å"),
        }
    )


def from_table(table: xr.Dataset) -> tuple[list[Flake], np.ndarray]:
    """Return the flakes of a table, and which are to learn from, shape (flake,)."""
    owner, box = table["flake_index"].values, float(table["box"])
    found = []
    for i, name in enumerate(table["name"].values):
        mine = owner == i
        numbers, positions, column, support = (
            table[field].values[mine] for field in ("number", "position", "column", "support")
        )
        found.append(
            Flake(str(name), numbers, positions.astype(float), column, support.astype(bool), (box, box))
        )
    return found, table["seen"].values.astype(bool)


@dataclass(frozen=True)
class Samples:
    """Flakes with their exit waves.

    Attributes
    ----------
    flakes : list of Flake
    seen : ndarray of bool, shape (flake,)
        Which are to learn from.
    waves : Tensor, shape (flake, y, x), complex64
        Behind the flakes, not smeared.
    sampling : float
        Pixel size of the waves, Å.
    """

    flakes: list[Flake]
    seen: np.ndarray
    waves: Tensor
    sampling: float


def waves_of(
    parameters: Parameters, made: Sequence[Flake], device: str = "cpu",
    report: Callable[[int, int], None] | None = None,
) -> Tensor:  # fmt: skip
    """Return the exit waves of flakes at twice the pixel size of their calculation.

    What is left out, frequencies above half of those of the grid, no image of the paper shows: there its
    envelopes are below 1e-3.

    Returns
    -------
    Tensor, shape (flake, y, x), complex64, on the CPU
    """
    how = parameters.multislice
    found = []
    for i, each in enumerate(made):
        wave = exit_waves.simulate(each.numbers, each.positions, how, device=device)
        found.append(halved(wave).cpu())
        if report is not None:
            report(i + 1, len(made))
    return torch.stack(found)


def halved(wave: Tensor) -> Tensor:
    """Return a periodic wave on every other pixel, without the frequencies that these cannot hold."""
    spectrum = torch.fft.fftshift(torch.fft.fft2(wave), dim=(-2, -1))
    quarter = [(size - size // 2) // 2 for size in wave.shape[-2:]]
    kept = spectrum[
        ..., quarter[0] : quarter[0] + wave.shape[-2] // 2, quarter[1] : quarter[1] + wave.shape[-1] // 2
    ]
    made: Tensor = torch.fft.ifft2(torch.fft.ifftshift(kept, dim=(-2, -1))) / 4
    return made


@cache
def _loaded(path: str, _: int, parameters: Parameters, device: str) -> Samples:
    table = records.load(path)
    found, seen = from_table(table.isel(seed=0))
    if len(found) < parameters.flakes:
        raise InputError(
            f"flakes={parameters.flakes}, but {path} holds {len(found)}: ask for at most as many"
        )
    if found[0].size[0] != parameters.box:
        raise InputError(f"box={parameters.box:g} Å, but that of {path} is {found[0].size[0]:g} Å: use that")
    # As many of either side as their share.
    first = np.flatnonzero(seen)[: round(parameters.seen * parameters.flakes)]
    second = np.flatnonzero(~seen)[: parameters.flakes - len(first)]
    chosen = [*first.tolist(), *second.tolist()]
    made = [found[i] for i in chosen]
    waves = waves_of(parameters, made, device)
    return Samples(made, seen[chosen], waves, 2 * parameters.sampling)


def load(parameters: Parameters, device: str = "cpu") -> Samples:
    """Return the stored flakes of a data set with their exit waves, which are computed here.

    Raises
    ------
    InputError
        If they are not stored, or not as many.
    """
    path = parameters.files()[parameters.data]
    # What a wave does not depend on must not compute it again.
    same = parameters.changed(
        seed=0, images=3, method="fusionnet", epochs=1, width=4, depth=1, batch=1, rate=1.0, pixels=16
    )
    return _loaded(str(path), path.stat().st_mtime_ns, same, device)
