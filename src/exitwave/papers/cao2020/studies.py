"""What is computed for Cao et al. 2020."""

from __future__ import annotations

from collections.abc import Callable

import xarray as xr

from exitwave.papers.cao2020.direct import direct
from exitwave.papers.cao2020.general import general
from exitwave.papers.cao2020.head_start import head_start
from exitwave.papers.cao2020.transfer import transfer

STUDIES: dict[str, Callable[..., xr.Dataset]] = {
    "transfer": transfer, "head_start": head_start, "general": general, "direct": direct,
}  # fmt: skip
