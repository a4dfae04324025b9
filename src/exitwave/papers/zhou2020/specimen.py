"""The films of the Lorentz chapter: the relaxed resolution target, ten bars, or a film from a file."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import xarray as xr

from exitwave import records
from exitwave.papers.zhou2020.parameters import Parameters
from exitwave.project import specimen_file
from exitwave.readers import read_ovf
from exitwave.specimens import magnets, micromagnetics, target

# Torque at which the target counts as relaxed, A/m: an eight-thousandth of the saturation magnetisation.
TORQUE = 100.0
_DIGITS = 2.0**12  # directions are stored to this fraction: they compress well, and 2e-4 rad is below TORQUE


def relax_target(parameters: Parameters, device: str = "cpu") -> xr.Dataset:  # noqa: ARG001
    """Relax the resolution target from a state drawn from the seed.

    Returns
    -------
    xarray.Dataset
        ``direction`` (component, y, x), unit vectors (x, y, z), zero outside the film, ``torque`` (A/m),
        ``energy`` (J) and ``steps``.
    """
    generator = np.random.default_rng(parameters.seed)
    start = target.start_state(target.resolution_target(generator), generator)
    relaxed = micromagnetics.relax(
        start,
        cell=(parameters.thickness, target.CELL, target.CELL),
        saturation=parameters.saturation,
        exchange=magnets.PERMALLOY_EXCHANGE,
        tolerance=TORQUE,
    )
    direction = (np.round(relaxed.direction * _DIGITS) / _DIGITS).astype(np.float32)
    record = xr.Dataset()
    record["direction"] = xr.Variable(
        ("component", "y", "x"),
        direction,
        {"units": "1", "long_name": "direction of magnetisation (x, y, z)"},
    )
    for name, value, units, long_name in (
        ("torque", relaxed.torque, "A/m", "largest component of m x H at rest"),
        ("energy", relaxed.energy, "J", "demagnetising and exchange energy"),
        ("steps", relaxed.steps, "1", "steps of 10 ps"),
    ):
        record[name] = xr.Variable((), value, {"units": units, "long_name": long_name})
    return record


def film(parameters: Parameters) -> magnets.Film:
    """Return the film that the parameters name."""
    if parameters.magnetisation is not None:
        record = read_ovf(parameters.magnetisation, saturation=parameters.saturation)
        return magnets.film_of_magnetisation(record["magnetisation"].values, tuple(record.attrs["cell"]))
    generator = np.random.default_rng(parameters.seed)
    shape, sampling = (parameters.pixels,) * 2, (parameters.sampling,) * 2
    if parameters.specimen == "target":
        return _stored_target(parameters, sampling)
    bars = magnets.ten_bars(parameters.pixels * parameters.sampling, generator)
    return magnets.film_of_bars(
        bars, shape, sampling, thickness=parameters.thickness, saturation=parameters.saturation
    )


def _stored_target(parameters: Parameters, sampling: tuple[float, float]) -> magnets.Film:
    """Return the stored state of a seed, binned or repeated by whole cells.

    Seeds beyond the number of stored states begin again with the first: only their noise is new.
    """
    stored = records.load(specimen_file("zhou2020", "target"))["direction"].values
    state = parameters.seed % len(stored)
    direction = torch.as_tensor(stored[state], dtype=torch.float64)
    covered = (direction.square().sum(0) > 0.25).double()
    values = torch.cat([parameters.saturation * direction[:2], covered[None]])
    scale = target.scale_of(parameters.pixels, parameters.sampling)
    if scale < 1:
        values = torch.nn.functional.avg_pool2d(values[None], round(1 / scale))[0]
    else:
        values = values.repeat_interleave(round(scale), -1).repeat_interleave(round(scale), -2)
    # Positions count from the centre of the first pixel, which lies elsewhere for another pixel size.
    offset = (parameters.sampling - target.CELL) / 2
    bars = [
        replace(bar, centre_y=bar.centre_y - offset, centre_x=bar.centre_x - offset)
        for bar in target.resolution_target(np.random.default_rng(state))[:-1]
    ]
    return magnets.Film(values[:2], values[2], parameters.thickness, sampling, tuple(bars))
