"""A study that leaves two files for each call, so that calls can be counted.

Every process of a test imports it: workers by Dask's preload, a command by ``python -c``.
"""

import os
import time
from pathlib import Path

import xarray as xr

from exitwave.papers.webb2025 import studies

# Calls with so many beams or more wait as long as there is a file of that name among the calls.
HELD, HOLD = 30, "hold"


def tiny(parameters, device="cpu"):
    """Say where in the grid this is."""
    calls = Path(os.environ["TINY_CALLS"])
    name = f"{parameters.seed}-{parameters.few_beams}-{os.getpid()}-{time.monotonic_ns()}"
    (calls / f"{name}.begun").touch()
    while parameters.few_beams >= HELD and (calls / HOLD).exists():
        time.sleep(0.01)
    (calls / f"{name}.ended").touch()
    value = parameters.few_beams + parameters.seed / 1000
    return xr.Dataset({"value": ((), value, {"units": "1", "long_name": "beams and seed"})})


studies.STUDIES["tiny"] = tiny
