"""What is computed for the comparison."""

from __future__ import annotations

from collections.abc import Callable

import xarray as xr

from exitwave.papers.comparison.beside import methods

STUDIES: dict[str, Callable[..., xr.Dataset]] = {"methods": methods}
