"""The data sets: crystals, partitioned by structure type, and waves by the paper's recipe.

Nothing is stored: a wave follows from its crystal and a seed of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from exitwave.errors import InputError
from exitwave.papers.ede2020.parameters import Parameters
from exitwave.readers.cif import read_cif
from exitwave.simulate.crystal_waves import Beams, Exposure, simulate
from exitwave.simulate.exit_waves import BAND
from exitwave.specimens.crystals import Crystal
from exitwave.specimens.structures import known_structures, relatives_of
from exitwave.specimens.zones import along

VOLTAGES = (80e3, 200e3, 300e3)
# In place of In1.7K2Se8Sn2.28 (see structures.yml).
ONE_MATERIAL = "half-filled TlSe"
# Fig. 7 shows crystals that no network has seen: these types, and one of each compound, are always unseen.
SHOWN = {"rock salt": "NaCl", "PbTiO3 alloy": "", "zincblende": "CdTe", "diamond": "Si"}
# Share of the crystals that is unseen: 2927 of 12789 in the paper's test set.
_UNSEEN = 0.23
# It may be larger by this factor, for whole types.
_OVER = 1.3
# What is drawn is the same for the same parameters, whatever the seed of a network.
_SEED = 2020
_SPLITS = ("train", "parameters", "materials")
# Waves that are computed at once.
_CHUNK = 200


def library(parameters: Parameters) -> list[Crystal]:
    """Return the crystals of all materials, structure types taking turns; without hydrogen, as in the code.

    Where the tables end, relatives follow (:func:`exitwave.specimens.structures.relatives_of`). A folder of
    CIFs takes the place of the tables; there are no relatives then.
    """
    generator = np.random.default_rng(_SEED)
    families: dict[str, list[Crystal]] = {}
    known = from_cifs(parameters)[0] if parameters.cifs else known_structures()
    for crystal in known:
        lengths = np.linalg.norm(crystal.cell, axis=1)
        small = lengths.max() <= parameters.longest_axis
        if small and crystal.prototype != ONE_MATERIAL and 1 not in crystal.numbers:
            families.setdefault(crystal.prototype, []).append(crystal)
    for name, members in families.items():
        shown = [c for c in members if c.formula == SHOWN.get(name)]
        rest = [members[i] for i in generator.permutation(len(members)) if members[i] not in shown]
        families[name] = shown + rest
    order = [*SHOWN, *(name for name in families if name not in SHOWN)]
    order = [name for name in order if name in families]
    deepest = max(map(len, families.values()))
    turns = [families[name][i] for i in range(deepest) for name in order if i < len(families[name])]
    missing = parameters.crystals - len(turns)
    if missing > 0 and not parameters.cifs:
        turns += relatives_of(generator, order, missing, largest=parameters.longest_axis)
    return turns[: parameters.crystals]


def from_cifs(parameters: Parameters) -> tuple[list[Crystal], list[str]]:
    """Return the crystals of the folder of CIFs, and why each of the others was left out.

    Crystals of one space group and one ratio of elements, whatever these are, count as one structure type.
    """
    found, refused = [], []
    for path in parameters.files().values():
        try:
            crystal = read_cif(path)
        except InputError as error:
            refused.append(str(error))
            continue
        if 1 in crystal.numbers:
            refused.append(f"{path}: hydrogen, which the paper leaves out")
            continue
        totals = [crystal.occupancies[crystal.numbers == z].sum() for z in np.unique(crystal.numbers)]
        ratios = ":".join(f"{total / min(totals):.3g}" for total in sorted(totals))
        found.append(replace(crystal, prototype=f"{crystal.space_group} {ratios}"))
    if not found:
        raise InputError(f"cifs={parameters.cifs!r}: no crystal to be used: {refused[0]}")
    return found, refused


def partition(crystals: Sequence[Crystal]) -> tuple[list[Crystal], list[Crystal]]:
    """Return the crystals to learn from and the unseen ones; no structure type is on both sides.

    Raises
    ------
    InputError
        If there is one type only.
    """
    generator = np.random.default_rng(_SEED + 1)
    sizes: dict[str, int] = {}
    for crystal in crystals:
        sizes[crystal.prototype] = sizes.get(crystal.prototype, 0) + 1
    if len(sizes) < 2:
        raise InputError(f"{len(crystals)} crystals of one structure type: give some of two types at least")
    names = [name for name in sizes if name in SHOWN]
    others = [name for name in sizes if name not in SHOWN]
    order = [*names, *(others[i] for i in generator.permutation(len(others)))]
    wanted, unseen = _UNSEEN * len(crystals), set[str]()
    for name in order:
        held = sum(sizes[each] for each in unseen)
        # A type that is too large for what is wanted stays seen.
        if held < wanted and held + sizes[name] <= max(_OVER * wanted, 1):
            unseen.add(name)
    if not unseen:
        unseen.add(min(order, key=lambda each: sizes[each]))
    seen = [c for c in crystals if c.prototype not in unseen]
    return seen, [c for c in crystals if c.prototype in unseen]


def one_material() -> Crystal:
    """Return what stands for In1.7K2Se8Sn2.28."""
    return next(c for c in known_structures() if c.prototype == ONE_MATERIAL)


@dataclass(frozen=True)
class Recipe:
    """What a wave is made by: number of the crystal, zone axis, and the rest in Å, eV, rad."""

    crystal: int
    zone: tuple[int, int, int]
    exposure: Exposure
    sampling: float
    rotation: float
    origin: tuple[float, float]


def draw(parameters: Parameters, crystals: int, split: str, index: int) -> Recipe:
    """Draw one wave of a split by the recipe of Sec. 2; each has a generator of its own."""
    generator = np.random.default_rng([_SEED, _SPLITS.index(split), index])
    ranges = parameters.ranges
    zones = [z for z in np.ndindex(*(ranges.index + 1,) * 3) if any(z)]
    sampling = (generator.uniform(*ranges.width) + 2 * parameters.margin) / parameters.grid
    tilt_y, tilt_x, rotation = (math.tan(each) for each in ranges.tilt * generator.standard_normal(3))
    exposure = Exposure(
        float(generator.choice(VOLTAGES)), float(generator.uniform(*ranges.depth)), (tilt_y, tilt_x),
        limit=BAND / (2 * sampling),
    )  # fmt: skip
    # Crystals take turns, so that each is in the data as often.
    zone = zones[generator.integers(len(zones))]
    origin = tuple(generator.uniform(0, 50, 2).tolist())
    return Recipe(index % crystals, zone, exposure, float(sampling), float(rotation), origin)


def beams_of(
    parameters: Parameters, crystals: Sequence[Crystal], recipes: Sequence[Recipe], device: str = "cpu"
) -> list[Beams]:
    """Return the waves of recipes as beams."""
    slabs = [along(crystals[each.crystal], each.zone) for each in recipes]
    return simulate(
        slabs, [each.exposure for each in recipes], thickness=parameters.slice_thickness,
        beyond=parameters.beyond, terms=parameters.n_terms, device=device,
    )  # fmt: skip


def waves_of(
    parameters: Parameters, crystals: Sequence[Crystal], recipes: Sequence[Recipe], device: str = "cpu"
) -> Tensor:
    """Return waves over their mean modulus, shape (sample, y, x), complex64, on the CPU."""
    found = torch.empty(len(recipes), parameters.field, parameters.field, dtype=torch.complex64)
    for first in range(0, len(recipes), _CHUNK):
        some = recipes[first : first + _CHUNK]
        for i, (beams, how) in enumerate(
            zip(beams_of(parameters, crystals, some, device), some, strict=True)
        ):
            there = beams.to(device)
            wave = there.image(parameters.field, how.sampling, rotation=how.rotation, origin=how.origin)
            found[first + i] = (wave / wave.abs().mean()).cpu()
    return found


@dataclass(frozen=True)
class Samples:
    """Waves of a scope.

    Attributes
    ----------
    train, parameters, materials : Tensor, shape (sample, y, x), complex64
        To learn from; the same crystals under other conditions; crystals of other structure types.
    """

    train: Tensor
    parameters: Tensor
    materials: Tensor


# Two at a time: those of a scope take a quarter of a GB.
@lru_cache(maxsize=2)
def _loaded(parameters: Parameters, device: str) -> Samples:
    seen, unseen = partition(library(parameters))
    if parameters.scope == "single":
        seen = [one_material()]
    counts = {"train": parameters.waves, "parameters": parameters.unseen, "materials": parameters.unseen}
    waves = {
        split: waves_of(
            parameters,
            crystals,
            [draw(parameters, len(crystals), split, i) for i in range(counts[split])],
            device,
        )
        for split, crystals in (("train", seen), ("parameters", seen), ("materials", unseen))
    }
    return Samples(**waves)


def load(parameters: Parameters, device: str = "cpu") -> Samples:
    """Return the waves of the scope, which are computed here."""
    # What a wave does not depend on must not compute it again.
    plain = type(parameters).at(parameters.scale)
    same = {name: getattr(plain, name) for name in _OF_NETWORKS}
    return _loaded(parameters.changed(**same), device)


_OF_NETWORKS = (
    "seed", "method", "order", "schedule", "decay", "first_moment", "second_moment", "pixels", "judge_width",
    "width", "downsamplings", "blocks", "steps", "batch", "clipping", "balance", "examples",
)  # fmt: skip
