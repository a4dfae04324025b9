"""What is computed for Leth Larsen et al. 2022."""

from __future__ import annotations

from collections.abc import Callable

import xarray as xr

from exitwave.papers.larsen2022.agreement import agreement
from exitwave.papers.larsen2022.comparison import compared
from exitwave.papers.larsen2022.cost import cost
from exitwave.papers.larsen2022.data import specimens
from exitwave.papers.larsen2022.dose_images import dose_images
from exitwave.papers.larsen2022.filtered import filtered
from exitwave.papers.larsen2022.iterative import iterative
from exitwave.papers.larsen2022.multislice import slices
from exitwave.papers.larsen2022.outside import outside
from exitwave.papers.larsen2022.reconstruction import reconstruction
from exitwave.papers.larsen2022.released import consistency, crossed
from exitwave.papers.larsen2022.smearing import smearing

STUDIES: dict[str, Callable[..., xr.Dataset]] = {
    "specimens": specimens,
    "slices": slices,
    "reconstruction": reconstruction,
    "crossed": crossed,
    "agreement": agreement,
    "consistency": consistency,
    "iterative": iterative,
    "dose_images": dose_images,
    "compared": compared,
    "outside": outside,
    "smearing": smearing,
    "filtered": filtered,
    "cost": cost,
}
