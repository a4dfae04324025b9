"""What is left of four orders of magnitude where one diagonalisation serves many tilts."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr

from exitwave.networks.pix2pix import GlobalGenerator
from exitwave.networks.training import predict
from exitwave.papers.webb2025.exact import _abtem as abtem_seconds_a_tilt
from exitwave.papers.webb2025.exact import _timed as timed
from exitwave.papers.webb2025.exact import one_thread, quantity, strontium_titanate
from exitwave.papers.webb2025.parameters import Parameters
from exitwave.papers.webb2025.patterns import THICKNESSES, geometry
from exitwave.simulate import lacbed
from exitwave.simulate.lacbed.propagation import chebyshev
from exitwave.simulate.lacbed.setup import prepare
from exitwave.specimens.crystals import Crystal

# The paper's resolution limit; that of the reference; that at which abTEM is timed, 377 beams; 1/Å.
_LIMIT, _REFERENCE, _ABTEM = 3.5, 6.0, 2.82
# Tilts at which errors are measured, for each seed others.
_TILTS = 16


def folding(parameters: Parameters, device: str = "cpu") -> xr.Dataset:
    """Time and judge both exact ways for SrTiO3 with B of 0 and 0.5 Å², in one thread and one run.

    Returns
    -------
    xarray.Dataset
        ``folded_seconds`` and ``chebyshev_seconds`` of a disk of 128 x 128 pixels at four thicknesses,
        ``folded_beams`` and ``chebyshev_beams``; ``network_seconds`` of the paper's generator (one image,
        weights at random) and ``ratio``, folded over network; ``abtem_ratio``, abTEM's seconds a tilt with
        377 beams over the folded calculation's with more. ``folded_error`` and ``limit_error``
        (B, thickness), largest differences to all beams to 6 1/Å at some tilts: of the folded calculation,
        and of all beams to the paper's 3.5 1/Å.
    """
    cold, warm = strontium_titanate(), strontium_titanate(0.5)
    field = lacbed.PeriodicGeometry(parameters.energy, pixels=128)
    with one_thread():
        folded = timed(
            lambda: lacbed.simulate_folded(cold, THICKNESSES, field, _LIMIT, verify=False, device=device)
        )
        plain = timed(
            lambda: lacbed.simulate(
                cold, THICKNESSES, geometry(parameters, cold), lacbed.Beams(limit=_LIMIT), verify=False
            )
        )
        network, image = GlobalGenerator(1, 1).eval(), torch.zeros(1, 1, 128, 128)
        predict(network, image)  # first call
        predicted = timed(lambda: predict(network, image))
        theirs = abtem_seconds_a_tilt(cold, parameters.energy, lacbed.Beams(limit=_ABTEM))
        judged = [_errors(each, field, parameters.seed) for each in (cold, warm)]
        pattern = lacbed.simulate_folded(cold, THICKNESSES, field, _LIMIT, verify=False)
    half = field.pixels // 2
    different = half * (half + 1) // 2  # 4mm
    setup = prepare(cold, field, lacbed.Beams(limit=_LIMIT), lacbed.Absorption(), "kirkland")
    values = {
        "folded_seconds": (folded, "s", "folded calculation, four thicknesses"),
        "chebyshev_seconds": (plain, "s", "Chebyshev expansion, four thicknesses"),
        "network_seconds": (predicted, "s", "the paper's generator, one image"),
        "ratio": (folded / predicted, "1", "folded over network"),
        "abtem_ratio": (theirs * different / folded, "1", "abTEM over folded, a tilt"),
        "folded_beams": (pattern.beams, "1", "most beams of a diagonalisation"),
        "chebyshev_beams": (len(setup.hkl), "1", "beams of the expansion"),
    }
    result = xr.Dataset({name: quantity(*value) for name, value in values.items()})
    per = ("B", "thickness")
    for i, name in enumerate(("folded_error", "limit_error")):
        result[name] = quantity([each[i] for each in judged], "1", "largest error of the intensity", per)
    return result.assign_coords(
        B=quantity([0.0, 0.5], "Å^2", "Debye-Waller factor", ("B",)),
        thickness=quantity(list(THICKNESSES), "Å", "thickness", ("thickness",)),
    )


def _errors(crystal: Crystal, field: lacbed.PeriodicGeometry, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the largest errors (thickness,) of the folded calculation and of all beams to the limit."""
    chosen = torch.as_tensor(np.random.default_rng(seed).permutation(field.pixels**2)[:_TILTS])
    tilts, depth = field.tilts(crystal)[chosen], torch.tensor(THICKNESSES, dtype=torch.float64)

    def by_expansion(limit: float) -> torch.Tensor:
        setup = prepare(crystal, field, lacbed.Beams(limit=limit), lacbed.Absorption(), "kirkland")
        problem = setup.problem(tilts, field.wavenumber)
        return chebyshev(problem, depth, torch.tensor([0]))[0].abs() ** 2

    truth = by_expansion(_REFERENCE)
    pattern = lacbed.simulate_folded(crystal, THICKNESSES, field, _LIMIT, verify=False)
    folded = pattern.intensity[0].flatten(1)[:, chosen].double()
    return tuple((each - truth).abs().amax(1).numpy() for each in (folded, by_expansion(_LIMIT)))  # type: ignore[return-value]
