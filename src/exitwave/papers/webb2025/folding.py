"""What is left of four orders of magnitude where one diagonalisation serves many tilts."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import torch
import xarray as xr

from exitwave.networks.pix2pix import GlobalGenerator
from exitwave.networks.training import predict
from exitwave.papers.webb2025.exact import _abtem as abtem_seconds_a_tilt
from exitwave.papers.webb2025.exact import _different, one_thread, quantity, strontium_titanate
from exitwave.papers.webb2025.exact import _timed as timed
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
# Edges, Å, of primitive cubic cells that are timed.
_EDGES = (3.0, 4.0, 5.2, 6.5)


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
        and of all beams to the paper's 3.5 1/Å. Against the edge of the cell (``edge``): seconds of a disk,
        ``edge_folded``, ``edge_felix`` (FELIX's beams), ``edge_abtem`` (all beams to 2.82 1/Å), and
        ``edge_beams`` of the folded calculation.
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
    setup = prepare(cold, field, lacbed.Beams(limit=_LIMIT), lacbed.Absorption(), "kirkland")
    values = {
        "folded_seconds": (folded, "s", "folded calculation, four thicknesses"),
        "chebyshev_seconds": (plain, "s", "Chebyshev expansion, four thicknesses"),
        "network_seconds": (predicted, "s", "the paper's generator, one image"),
        "ratio": (folded / predicted, "1", "folded over network"),
        "abtem_ratio": (theirs * _different(field.pixels) / folded, "1", "abTEM over folded, a tilt"),
        "folded_beams": (pattern.beams, "1", "most beams of a diagonalisation"),
        "chebyshev_beams": (len(setup.hkl), "1", "beams of the expansion"),
    }
    result = xr.Dataset({name: quantity(*value) for name, value in values.items()})
    per = ("B", "thickness")
    for i, name in enumerate(("folded_error", "limit_error")):
        result[name] = quantity([each[i] for each in judged], "1", "largest error of the intensity", per)
    edges = [_cost(replace(cold, cell=edge * np.eye(3)), parameters, field) for edge in _EDGES]
    columns = {
        "folded": ("s", "folded calculation"),
        "felix": ("s", "with FELIX's beams"),
        "abtem": ("s", "abTEM"),
        "beams": ("1", "beams of the folded calculation"),
    }
    for i, (name, (units, text)) in enumerate(columns.items()):
        result[f"edge_{name}"] = quantity([each[i] for each in edges], units, text, ("edge",))
    return result.assign_coords(
        edge=quantity(list(_EDGES), "Å", "edge of the cell", ("edge",)),
        B=quantity([0.0, 0.5], "Å^2", "Debye-Waller factor", ("B",)),
        thickness=quantity(list(THICKNESSES), "Å", "thickness", ("thickness",)),
    )


def _cost(
    crystal: Crystal, parameters: Parameters, field: lacbed.PeriodicGeometry
) -> tuple[float, float, float, int]:
    """Return the seconds of a disk in one thread: folded, with FELIX's beams, by abTEM; and the beams."""
    with one_thread():
        begin = time.process_time()
        found = lacbed.simulate_folded(crystal, THICKNESSES, field, _LIMIT, verify=False)
        folded = time.process_time() - begin
        begin = time.process_time()
        wide = geometry(parameters, crystal, field.pixels)
        lacbed.simulate(crystal, THICKNESSES, wide, lacbed.Beams("felix"), verify=False)
        felix = time.process_time() - begin
        theirs = abtem_seconds_a_tilt(crystal, parameters.energy, lacbed.Beams(limit=_ABTEM))
    return folded, felix, theirs * _different(field.pixels), found.beams


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
