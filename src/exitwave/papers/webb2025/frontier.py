"""What error costs which time: exact patterns of more and more beams beside FELIX's choice."""

from __future__ import annotations

import time

import numpy as np
import xarray as xr

from exitwave import metrics
from exitwave.papers.webb2025.exact import one_thread, quantity
from exitwave.papers.webb2025.parameters import Parameters
from exitwave.papers.webb2025.patterns import (
    THICKNESSES,
    about,
    geometry,
    specimen,
    stored_crystals,
    stretched,
)
from exitwave.simulate import lacbed

# Beams of the candidates and of the reference, and crystals over which errors are averaged.
_BEAMS, _REFERENCE, _CRYSTALS = (13, 25, 49, 97, 193, 385), 700, 8


def frontier(parameters: Parameters, device: str = "cpu") -> xr.Dataset:
    """Compare patterns of few beams, and of FELIX's, with patterns of many, by error and time.

    Crystals are those of the data set with B of 0.5 to 1 Å², so that the reference is converged.

    Returns
    -------
    xarray.Dataset
        ``mse`` (Eq. 3 of stretched patterns), ``r`` (Eq. 4) (rule, thickness), ``seconds`` (rule) of one
        thread for all thicknesses, ``beams`` (rule), means over crystals; ``reference_error``, the largest
        error of the reference by its choice of beams (thickness); ``samples``.
    """
    parameters = parameters.changed(version="converged", reads="crystals")
    crystals = stored_crystals(parameters)
    chosen = np.random.default_rng(parameters.seed).permutation(len(crystals))[:_CRYSTALS]
    names = [str(number) for number in _BEAMS] + ["FELIX"]
    errors, indices = (np.zeros((len(names), len(THICKNESSES))) for _ in range(2))
    seconds, beams = np.zeros(len(names)), np.zeros(len(names))
    doubt = np.zeros(len(THICKNESSES))
    with one_thread():
        for crystal in (specimen(parameters, crystals[i]) for i in chosen):
            field = geometry(parameters, crystal, parameters.pixels)
            best = lacbed.simulate(crystal, THICKNESSES, field, about(_REFERENCE, crystal), device=device)
            truth = stretched(best.intensity[0].cpu().double())
            if best.beam_error is not None:
                doubt = np.maximum(doubt, best.beam_error.cpu().numpy())
            rules = [*(about(number, crystal) for number in _BEAMS), lacbed.Beams("felix")]
            for i, rule in enumerate(rules):
                begin = time.process_time()
                found = lacbed.simulate(crystal, THICKNESSES, field, rule, verify=False, device=device)
                seconds[i] += (time.process_time() - begin) / len(chosen)
                made = stretched(found.intensity[0].cpu().double())
                errors[i] += (made - truth).square().mean((1, 2)).numpy() / len(chosen)
                indices[i] += metrics.correlation_index(made, truth).numpy() / len(chosen)
                beams[i] += found.beams / len(chosen)
    dims = ("rule", "thickness")
    return xr.Dataset(
        {
            "mse": quantity(errors, "1", "mean square error of stretched patterns", dims),
            "r": quantity(indices, "1", "R", dims),
            "seconds": quantity(seconds, "s", "time of all thicknesses, one thread", ("rule",)),
            "beams": quantity(beams, "1", "beams", ("rule",)),
            "reference_error": quantity(doubt, "1", "largest error of the reference", ("thickness",)),
            "samples": quantity(len(chosen), "1", "crystals"),
        },
        coords={
            "rule": quantity(names, "1", "about so many beams, or FELIX's rule", ("rule",)),
            "thickness": quantity(list(THICKNESSES), "Å", "thickness", ("thickness",)),
        },
    )
