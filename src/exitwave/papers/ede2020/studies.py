"""What is computed for Ede et al. 2020."""

from __future__ import annotations

from collections.abc import Callable

import xarray as xr

from exitwave.papers.ede2020.alternatives import alternatives
from exitwave.papers.ede2020.baselines import baseline, dataset, equations, focal_series
from exitwave.papers.ede2020.better import better
from exitwave.papers.ede2020.physics import physics
from exitwave.papers.ede2020.prediction import live, prediction
from exitwave.papers.ede2020.sharded import sharded
from exitwave.papers.ede2020.sharded_losses import sharded_losses

STUDIES: dict[str, Callable[..., xr.Dataset]] = {
    "baseline": baseline,
    "dataset": dataset,
    "equations": equations,
    "focal_series": focal_series,
    "prediction": prediction,
    "live": live,
    "better": better,
    "alternatives": alternatives,
    "physics": physics,
    "sharded": sharded,
    "sharded_losses": sharded_losses,
}
