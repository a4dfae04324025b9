"""A network's potential as the start of the inverse by physics."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
import xarray as xr
from torch import Tensor

from exitwave.papers.webb2025.inversion import Retrieval, retrieve_potential, scores
from exitwave.papers.webb2025.parameters import Parameters
from exitwave.papers.webb2025.patterns import _centring as centring
from exitwave.papers.webb2025.patterns import about, geometry, specimen, stored_crystals
from exitwave.papers.webb2025.projection import Centring, Known, has_symmetry, model_of
from exitwave.simulate import lacbed

# Beams of model and truth, and pixels of the field.
_BEAMS, _PIXELS = 60, 32


@dataclass(frozen=True)
class Refined:
    """A network's answer before and after it is fitted to the pattern.

    Attributes
    ----------
    name : str
    network, truth : Tensor, shape (y, x)
        The network's image; the true potential at the resolution of the fit, 1/Å².
    fit : Retrieval
    before, after : dict
        Scores of both, see :func:`exitwave.papers.webb2025.inversion.scores`; the first of the network's
        image at the resolution of the fit.
    """

    name: str
    network: Tensor
    truth: Tensor
    fit: Retrieval
    before: dict[str, float]
    after: dict[str, float]


def refine(parameters: Parameters, run: xr.Dataset, seed: int = 0) -> Iterator[Refined]:
    """Fit the network's answers that a stored inverse run keeps to exact patterns, one after the other.

    Only crystals whose projection has 4mm about some axis are taken. Truth and model have the same beams.

    Parameters
    ----------
    parameters : Parameters
        Of the run.
    run : xarray.Dataset
        Of :func:`exitwave.papers.webb2025.translation.translation`, with ``seed``.
    seed : int
        The fold.
    """
    one = run.sel(seed=seed)
    crystals = stored_crystals(parameters)
    for i in range(one.sizes["kept"]):
        name, a = str(one["name"].values[i]), float(one["lattice_parameter"].values[i])
        found = next(c for c in crystals if c.name == name and abs(c.lattice_parameter - a) < 1e-9)
        if not has_symmetry(torch.as_tensor(one["truth"].values[i] / 255), "4mm"):
            continue
        crystal = specimen(parameters, found)
        few, field = about(_BEAMS, crystal), geometry(parameters, crystal, _PIXELS)
        known = Known(a, (parameters.thickness,), field, few.limit, cast(Centring, centring(crystal)))
        pattern = lacbed.simulate(
            crystal, known.thickness, field, few, dtype=torch.float64, verify=False
        ).intensity[0]
        network = torch.as_tensor(one["predicted"].values[i] / 255)
        fit = retrieve_potential(pattern, known, network, tries=2)
        model = model_of(known)
        truth = model.image(
            model.unknowns(lambda hkl, c=crystal: lacbed.potential_coefficients(c, hkl, parameters.energy))  # type: ignore[misc]
        )
        yield Refined(name, network, truth, fit, scores(fit.start, truth), scores(fit.potential, truth))
