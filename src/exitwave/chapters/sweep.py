"""Parameter sweeps of a study, or of a whole notebook, over a grid."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from exitwave import records
from exitwave.chapters.points import Point, Report, run_points
from exitwave.chapters.project import parameters_of, study_of
from exitwave.chapters.sources import source_hash
from exitwave.errors import InputError
from exitwave.papers.parameters import PaperParameters
from exitwave.project import runs_folder

Axes = Mapping[str, Sequence[Any]]

# Those with which the description of a parameter may end.
_UNITS = ("Å", "Å^2", "1/Å", "eV", "rad", "V", "A/m", "s")


def grid(paper: str, axes: Axes) -> list[PaperParameters]:
    """Return the parameters of every point of a grid, the last axis fastest.

    Raises
    ------
    InputError
        For an unknown chapter, name, type or value, before anything starts.
    """
    for name, values in axes.items():
        if not values or len(set(values)) != len(values):
            raise InputError(f"sweep: {name} has no value or one value twice: list each value once")
        if None in values and len(values) > 1:
            raise InputError(f"sweep: {name}=none stands among other values: sweep those only")
    model = parameters_of(paper)
    points = [
        model.at(**dict(zip(axes, values, strict=True))) for values in itertools.product(*axes.values())
    ]
    for parameters in points:
        parameters.files()
    return points


def run_sweep(paper: str, study: str, axes: Axes, *, report: Report, **how: Any) -> tuple[Path, xr.Dataset]:
    """Call a study for every point of a grid and gather the results.

    Parameters
    ----------
    paper, study : str
    axes : mapping of name to values
        Values of each parameter; those with several become dimensions of the result.
    report : callable
        See :func:`exitwave.chapters.points.run_points`, as for the options in `how`.

    Returns
    -------
    path : Path
        ``runs/<paper>/sweeps/<study>-<hash>.nc``.
    result : xarray.Dataset
        Quantities along the swept parameters.
    """
    points = [Point(paper, study, parameters) for parameters in grid(paper, axes)]
    results = run_points(points, report=report, **how)
    result = gather(results, axes, parameters_of(paper))
    source = source_hash(study_of(paper, study))
    made = records.provenance(
        records.command_line(),
        paper=paper,
        scale=points[0].parameters.scale,
        parameters=points[0].parameters.model_dump() | {name: list(values) for name, values in axes.items()},
        seconds=sum(records.provenance_of(each)["seconds"] for each in results),
        study=study,
        source=source,
    )
    key = points[0].parameters.key(
        study, source, *(f"{name}={list(values)}" for name, values in axes.items())
    )
    path = runs_folder() / paper / "sweeps" / f"{study}-{key}.nc"
    return records.save(records.with_provenance(result, made), path), result


def gather(results: Sequence[xr.Dataset], axes: Axes, model: type[PaperParameters]) -> xr.Dataset:
    """Return the results of a grid as one dataset along the axes that have several values.

    Only what every point has with equal shape is kept (curves of unequal length are not).
    """
    swept = {name: list(values) for name, values in axes.items() if len(values) > 1}
    shape = tuple(len(values) for values in swept.values())
    gathered = xr.Dataset()
    first = results[0]
    for name in first.variables:
        arrays = [each[name].values for each in results if name in each]
        if len(arrays) < len(results) or any(array.shape != arrays[0].shape for array in arrays):
            continue
        if name in first.coords or name in first.sizes:
            if all(np.array_equal(array, arrays[0]) for array in arrays):
                gathered[name] = first[name].variable
            continue
        stacked = np.stack(arrays).reshape(shape + arrays[0].shape)
        gathered[name] = xr.Variable((*swept, *first[name].dims), stacked, first[name].attrs)
    for name, values in swept.items():
        long_name, units = described(model.model_fields[name].description or name)
        gathered = gathered.assign_coords(
            {name: xr.Variable(name, values, {"units": units, "long_name": long_name})}
        )
    return gathered


def described(description: str) -> tuple[str, str]:
    """Return what a parameter is, and its unit: ``film thickness, Å`` has one, others have ``1``."""
    text, comma, unit = description.rpartition(", ")
    return (text, unit) if comma and unit in _UNITS else (description, "1")
