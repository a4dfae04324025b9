"""Variables of results: values with their units and what they are."""

from __future__ import annotations

import numpy as np
import xarray as xr


def quantity(values: object, units: str, long_name: str, dims: tuple[str, ...] = ()) -> xr.Variable:
    """Return a variable with its units and name."""
    return xr.Variable(dims, np.asarray(values), {"units": units, "long_name": long_name})
