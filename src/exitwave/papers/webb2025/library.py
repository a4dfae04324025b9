"""The crystals of the data set: known ones, their other origins, random ones, substituted relatives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import xarray as xr

from exitwave.papers.webb2025.parameters import Parameters
from exitwave.specimens import prototypes, random_cubic
from exitwave.specimens.crystals import Crystal, to_table

# Shares of the data set: as many random crystals of each space group, and at most this part with the other
# origin. The rest are known crystals, no prototype with more than its share, then relatives of them.
_RANDOM_PART, _OTHER_ORIGIN_PART, _PROTOTYPE_PART = 0.15, 0.08, 0.04


def library(parameters: Parameters) -> list[Crystal]:
    """Return the crystals of a data set, in random order; the same for the same parameters.

    Parameters
    ----------
    parameters : Parameters
        ``crystals`` and ``largest_cell`` are used; the seed is not, which counts shards and folds.
    """
    generator = np.random.default_rng(2025)
    count, largest = parameters.crystals, parameters.largest_cell
    random = random_cubic.random_crystals(generator, round(_RANDOM_PART * count), max_lattice=largest)
    known = [c for c in prototypes.known_crystals() if c.lattice_parameter <= largest]
    chosen = _balanced(known, generator, max(2, round(_PROTOTYPE_PART * count)))
    doubled = [c for c in chosen if c.setting == "2"]
    other = [prototypes.other_origin(c) for c in _some(doubled, generator, round(_OTHER_ORIGIN_PART * count))]
    main = _some(chosen, generator, count - len(random) - len(other))
    missing = count - len(random) - len(other) - len(main)
    more = prototypes.relatives(generator, missing, max_lattice=largest) if missing else []
    return _some([*main, *other, *random, *more], generator, count)


def _some(crystals: Sequence[Crystal], generator: np.random.Generator, most: int) -> list[Crystal]:
    order = generator.permutation(len(crystals))[:most]
    return [crystals[i] for i in order]


def _balanced(crystals: Sequence[Crystal], generator: np.random.Generator, most: int) -> list[Crystal]:
    """Return crystals with no prototype more often than `most`."""
    counted: Counter[str] = Counter()
    kept = []
    for crystal in _some(crystals, generator, len(crystals)):
        counted[crystal.prototype] += 1
        if counted[crystal.prototype] <= most:
            kept.append(crystal)
    return kept


def crystals(parameters: Parameters, device: str = "cpu") -> xr.Dataset:  # noqa: ARG001
    """Return the table of the data set's crystals (see :func:`exitwave.specimens.crystals.to_table`)."""
    return to_table(library(parameters))
