"""Sweeps in files: those that come with the project, in ``data/``, and those of a reader, in ``runs/``."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from exitwave import records
from exitwave.chapters.points import Point, Report, run_points
from exitwave.chapters.project import chapters, parameters_of, study_of
from exitwave.chapters.sources import source_hash
from exitwave.chapters.sweep import gather, grid
from exitwave.errors import InputError
from exitwave.papers.parameters import PaperParameters, Scale
from exitwave.papers.sweeps import Sweep, load_sweeps
from exitwave.project import data_folder, runs_folder


def sweep_file(paper: str, scale: str, name: str) -> Path:
    """Return where the result of a sweep that comes with the project is kept."""
    return data_folder() / paper / scale / f"{name}.nc"


def sweep_points_of(paper: str, sweep: Sweep, scale: Scale) -> list[Point]:
    """Return one point for each seed and place of the grid."""
    return [Point(paper, sweep.study, parameters) for parameters in grid(paper, sweep.grid(scale))]


def selected_sweeps(paper: str, only: str | None = None) -> dict[str, Sweep]:
    """Return the sweeps of a paper, or the one of a name; none where something else has that name."""
    sweeps = load_sweeps(paper)
    return {name: each for name, each in sweeps.items() if only in (None, name)}


def sweep_points(paper: str, scale: Scale, only: str | None = None) -> list[list[Point]]:
    """Return the points of each of :func:`selected_sweeps`."""
    return [sweep_points_of(paper, sweep, scale) for sweep in selected_sweeps(paper, only).values()]


def store_sweeps(
    paper: str, scale: Scale, *, only: str | None = None, report: Report, **how: Any
) -> list[Path]:
    """Compute the sweeps of a paper and store them; finished points are not computed again.

    Parameters
    ----------
    paper, scale : str
    only : str, optional
        Name of one of them.
    report, **how
        See :func:`exitwave.chapters.points.run_points`.

    Returns
    -------
    list of Path
        ``data/<paper>/<scale>/<name>.nc`` of each: quantities along ``seed``, where there are several, and
        the axes.

    Raises
    ------
    InputError
        If a quantity is to be kept that the study does not give.
    """
    stored = []
    for name, sweep in selected_sweeps(paper, only).items():
        points = sweep_points_of(paper, sweep, scale)
        results = run_points(points, report=report, **how)
        gathered = gather(results, sweep.grid(scale), parameters_of(paper))
        missing = [each for each in sweep.keep if each not in gathered]
        if missing:
            raise InputError(f"{name} is to keep {missing[0]!r}, which its study does not give everywhere")
        made = _provenance(paper, scale, name, sweep, points, results)
        kept = gathered[sweep.keep] if sweep.keep else gathered
        stored.append(records.save(records.with_provenance(kept, made), sweep_file(paper, scale, name)))
    return stored


def _provenance(
    paper: str, scale: str, name: str, sweep: Sweep, points: list[Point], results: list[xr.Dataset]
) -> dict[str, Any]:
    return records.provenance(
        shlex.join(["exitwave", "reproduce", paper, "--scale", scale, "--only", name]),
        paper=paper,
        scale=scale,
        parameters=_fixed(points[0].parameters, sweep),
        seconds=sum(records.provenance_of(each)["seconds"] for each in results),
        device=records.provenance_of(results[0])["device"],
        study=sweep.study,
        sweep=name,
        axes=sweep.axes,
        source=points[0].source,
        seeds=list(range(sweep.seeds)),
        files=points[0].parameters.digests(),
    )


def _fixed(parameters: PaperParameters, sweep: Sweep) -> dict[str, Any]:
    """Return the parameters that are the same at all points."""
    return {n: v for n, v in parameters.model_dump().items() if n != "seed" and n not in sweep.axes}


def sweep_is_stale(stored: xr.Dataset, paper: str, sweep: Sweep, scale: Scale) -> bool:
    """Tell whether sources, parameters, axes or files that made a stored sweep have changed since."""
    made = records.provenance_of(stored)
    now = parameters_of(paper).at(scale, **sweep.settings)
    then = parameters_of(paper)().model_dump() | made.get("parameters", {})
    return (
        any(then[name] != value for name, value in _fixed(now, sweep).items())
        or made.get("axes") != sweep.axes
        or made.get("seeds") != list(range(sweep.seeds))
        or made.get("files", {}) != now.digests()
        or made.get("source") != source_hash(study_of(paper, sweep.study))
    )


@dataclass(frozen=True)
class Found:
    """A sweep in a file.

    Attributes
    ----------
    name : str
        Its path in the folder of runs, or its name.
    result : xarray.Dataset, optional
        None if the file cannot be read; `fault` then says why.
    fault : str
        Empty if there is none.
    """

    name: str
    result: xr.Dataset | None = None
    fault: str = ""

    @property
    def made(self) -> dict[str, Any]:
        """What made it."""
        return {} if self.result is None else records.provenance_of(self.result)

    @property
    def axes(self) -> Mapping[str, int]:
        """Its axes with how many values they have."""
        return {} if self.result is None else {str(name): n for name, n in self.result.sizes.items()}


def shipped_sweep(paper: str, name: str, scale: Scale = "workshop") -> Found:
    """Return a sweep that comes with the project; its fault says if it is missing, damaged or stale.

    Raises
    ------
    InputError
        If the paper declares none of that name.
    """
    sweeps = load_sweeps(paper)
    if name not in sweeps:
        raise InputError(f"unknown sweep {name!r} of {paper}: use one of {', '.join(sweeps) or 'none'}")
    again = f"make it with `exitwave reproduce {paper} --only {name}`"
    path = sweep_file(paper, scale, name)
    if not path.is_file():
        return Found(name, fault=f"not computed yet: {again}")
    try:
        result = records.load(path)
    except InputError:
        return Found(name, fault=f"its file is damaged: {again}")
    stale = sweep_is_stale(result, paper, sweeps[name], scale)
    return Found(name, result, f"stale, for its sources have changed since: {again}" if stale else "")


def own_sweeps() -> list[Found]:
    """Return the sweeps that ``exitwave sweep`` has left in the folder of runs, newest first.

    A damaged file is named and says so; what is in a folder of no chapter is left out.
    """
    found = []
    for path in sweep_files(runs_folder()):
        if path.parts[-3] not in chapters():
            continue
        name = path.relative_to(runs_folder()).as_posix()
        try:
            result = records.load(path)
            found.append(Found(name, result))
        except InputError:
            found.append(Found(name, fault="damaged: remove it, or make it again by the same command"))
    return sorted(found, key=lambda each: (str(each.made.get("made", "")), each.name), reverse=True)


def sweep_files(folder: Path) -> list[Path]:
    """Return the files of all sweeps in a folder of runs."""
    return sorted(path for path in folder.glob("*/sweeps/*.nc") if not path.name.startswith("."))
