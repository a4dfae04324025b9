"""What is computed for Webb et al. 2025."""

from __future__ import annotations

from collections.abc import Callable

import xarray as xr

from exitwave.papers.webb2025.converged import converged, converged_patterns
from exitwave.papers.webb2025.exact import convergence, cost, same_projection, speed, thickness_change
from exitwave.papers.webb2025.few_beams import few_beams
from exitwave.papers.webb2025.folding import folding
from exitwave.papers.webb2025.frontier import frontier
from exitwave.papers.webb2025.inversion import inversion
from exitwave.papers.webb2025.library import crystals
from exitwave.papers.webb2025.patterns import patterns
from exitwave.papers.webb2025.translation import translation
from exitwave.papers.webb2025.variation import dark_field, variation

STUDIES: dict[str, Callable[..., xr.Dataset]] = {
    "crystals": crystals,
    "patterns": patterns,
    "converged_patterns": converged_patterns,
    "dark_field": dark_field,
    "cost": cost,
    "convergence": convergence,
    "same_projection": same_projection,
    "speed": speed,
    "folding": folding,
    "frontier": frontier,
    "thickness_change": thickness_change,
    "few_beams": few_beams,
    "inversion": inversion,
    "translation": translation,
    "variation": variation,
    "converged": converged,
}
