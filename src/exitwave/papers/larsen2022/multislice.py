"""How thin slices must be, and what they cost (Fig. S2)."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import torch
import xarray as xr

from exitwave import metrics
from exitwave.papers.larsen2022.data import from_table
from exitwave.papers.larsen2022.parameters import Parameters
from exitwave.papers.quantities import quantity
from exitwave.records import load
from exitwave.simulate import exit_waves

# Å; the paper's reference has 0.01.
THICKNESSES = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 4.0, 8.0)
_REFERENCE, _CHOSEN = 0.01, 0.2


def slices(parameters: Parameters, device: str = "cpu") -> xr.Dataset:
    """Compare exit waves of one flake in slices of several thicknesses with one in the thinnest.

    The seed counts the flakes of the data set.

    Returns
    -------
    xarray.Dataset
        Along ``thickness``: ``error`` (Eq. A.1), ``smeared_error`` of the waves as networks learn them,
        ``slices`` and ``seconds``. Of the thickness of the paper, 0.2 Å: ``error_chosen``,
        ``smeared_error_chosen``; of the thickest, ``error_thickest``.
    """
    made, _ = from_table(load(parameters.files()[parameters.data]).isel(seed=0))
    flake = made[parameters.seed]
    how = parameters.multislice

    def wave(thickness: float) -> torch.Tensor:
        thin = replace(how, thickness=thickness)
        return exit_waves.simulate(
            flake.numbers, flake.positions, thin, dtype=torch.complex128, device=device
        ).cpu()

    def soft(one: torch.Tensor) -> torch.Tensor:
        return exit_waves.smeared(one, parameters.sampling, parameters.smear)

    reference = wave(_REFERENCE)
    errors, smeared, counts, seconds = (np.zeros(len(THICKNESSES)) for _ in range(4))
    for i, thickness in enumerate(THICKNESSES):
        begin = time.perf_counter()
        found = wave(thickness)
        seconds[i] = time.perf_counter() - begin
        errors[i] = metrics.relative_wave_error(found, reference)
        smeared[i] = metrics.relative_wave_error(soft(found), soft(reference))
        heights = torch.as_tensor(flake.positions[:, 2].copy())
        counts[i] = len(exit_waves.slices_of(heights, thickness)[1])
    dims, chosen = ("thickness",), THICKNESSES.index(_CHOSEN)
    return xr.Dataset(
        {
            "error": quantity(errors, "1", "Eq. A.1", dims),
            "smeared_error": quantity(smeared, "1", "Eq. A.1 of the smeared waves", dims),
            "slices": quantity(counts, "1", "slices", dims),
            "seconds": quantity(seconds, "s", "time", dims),
            "error_chosen": quantity(errors[chosen], "1", "Eq. A.1 in slices of 0.2 Å"),
            "smeared_error_chosen": quantity(smeared[chosen], "1", "Eq. A.1 in slices of 0.2 Å, smeared"),
            "error_thickest": quantity(errors[-1], "1", "Eq. A.1 in the thickest slices"),
        },
        coords={"thickness": quantity(list(THICKNESSES), "Å", "greatest extent of a slice", dims)},
    )
