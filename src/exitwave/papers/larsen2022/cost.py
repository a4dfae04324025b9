"""What a data set and a network cost (Table A.2)."""

from __future__ import annotations

import time

import torch
import xarray as xr

from exitwave import records
from exitwave.papers.larsen2022.data import from_table, waves_of
from exitwave.papers.larsen2022.parameters import Parameters
from exitwave.papers.larsen2022.training import build, expose
from exitwave.papers.quantities import quantity

# Of Sec. 2 and 3: waves to learn from and to judge by; epochs of images that were made, and all epochs.
LEARNT = {"mos2": 1000, "supported": 1000, "materials": 4524}
JUDGED = {"mos2": 1000, "supported": 1000, "materials": 2262}
_MADE, _EPOCHS = 10, 200
# What is timed: waves, series, steps of training.
_WAVES, _SERIES, _STEPS = 4, 12, 2


def cost(parameters: Parameters, device: str = "cpu") -> xr.Dataset:
    """Time some waves, series and steps of training, and say how long all of the paper's would take.

    Returns
    -------
    xarray.Dataset
        ``wave_seconds``, ``series_seconds``, ``training_seconds`` (of one series in training), and for as
        many as the paper has ``wave_hours``, ``series_hours``, ``training_hours``, on this device.
    """
    table = records.load(parameters.files()[parameters.data]).isel(seed=0)
    flakes = from_table(table)[0]
    first = parameters.seed * _WAVES
    chosen = [flakes[(first + i) % len(flakes)] for i in range(_WAVES)]
    sampling = 2 * parameters.sampling
    waves_of(parameters, chosen[:1], device)  # what is computed once
    begin = time.perf_counter()
    waves = waves_of(parameters, chosen, device)
    wave_seconds = (time.perf_counter() - begin) / _WAVES

    several = waves.repeat(_SERIES // _WAVES, 1, 1).to(device)
    generator = torch.Generator().manual_seed(parameters.seed)
    begin = time.perf_counter()
    series = expose(parameters, several, sampling, parameters.pixels, generator, anywhere=True)
    series.images.cpu()
    series_seconds = (time.perf_counter() - begin) / _SERIES

    network = build(parameters).to(device).train()
    optimiser = torch.optim.RMSprop(network.parameters(), parameters.rate, alpha=0.9, eps=1e-7)
    begin = time.perf_counter()
    for step in range(_STEPS):
        part = slice(step * parameters.batch, (step + 1) * parameters.batch)
        optimiser.zero_grad()
        loss = (network(series.images[part]) - series.waves[part]).square().mean()
        loss.backward()
        optimiser.step()
    float(loss.detach())
    step_seconds = (time.perf_counter() - begin) / (_STEPS * parameters.batch)

    learnt, judged = LEARNT[parameters.data], JUDGED[parameters.data]
    counts = {"wave": learnt + judged, "series": _MADE * learnt + judged, "training": _EPOCHS * learnt}
    result = xr.Dataset()
    for name, seconds, what in (
        ("wave", wave_seconds, "exit waves"),
        ("series", series_seconds, "series"),
        ("training", step_seconds, "series in training"),
    ):
        result[f"{name}_seconds"] = quantity(seconds, "s", f"time of one of the {what}")
        hours = seconds * counts[name] / 3600
        result[f"{name}_hours"] = quantity(hours, "h", f"time of the paper's {counts[name]} {what}")
    return result
