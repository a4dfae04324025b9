"""Run a chapter with other parameters, and look at what was run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from exitwave import records
from exitwave.chapters.execute import check_parameters, execute
from exitwave.chapters.project import chapters, parameters_of, studies_of
from exitwave.chapters.sources import source_hash
from exitwave.chapters.sweep import Axes, grid
from exitwave.errors import InputError
from exitwave.papers.parameters import PaperParameters
from exitwave.project import project_root, runs_folder
from exitwave.readers.guards import check_hdf5


def notebook_of(chapter: str) -> Path:
    """Return the notebook of a chapter.

    Raises
    ------
    InputError
        If there is no such chapter.
    """
    if chapter not in chapters():
        raise InputError(f"unknown chapter {chapter!r}: use one of {', '.join(chapters())}")
    return project_root() / "notebooks" / f"{chapter}.ipynb"


def run_path(chapter: str, parameters: PaperParameters) -> Path:
    """Return where the last cell of a chapter writes its run: ``runs/<chapter>/<hash>.nc``.

    The hash is of the parameters, the files that they name and the sources of the chapter's studies.
    """
    sources = [source_hash(study) for study in studies_of(chapter).values()]
    return runs_folder() / chapter / f"{parameters.key(chapter, *sources)}.nc"


def save_run(chapter: str, parameters: PaperParameters, result: xr.Dataset, seconds: float) -> Path:
    """Write the result of a chapter's live cells with its provenance.

    Parameters
    ----------
    chapter : str
    parameters : PaperParameters
    result : xarray.Dataset
        Every variable with ``units`` and ``long_name``.
    seconds : float
        Wall-clock time of the run.

    Returns
    -------
    Path
        See :func:`run_path`.
    """
    made = records.provenance(
        f"notebook {chapter}",
        paper=chapter,
        scale=parameters.scale,
        parameters=parameters.model_dump(),
        seed=parameters.seed,
        seconds=seconds,
    )
    return records.save(records.with_provenance(result, made), run_path(chapter, parameters))


def checked(chapter: str, given: Mapping[str, object]) -> tuple[dict[str, object], PaperParameters]:
    """Return given values in the notebook's types, and the parameters they make.

    Raises
    ------
    InputError
        For an unknown chapter or name, a wrong type, a value out of range or a missing file.
    """
    typed = check_parameters(notebook_of(chapter), given)
    scale = str(typed.get("scale", "workshop"))
    others = {name: value for name, value in typed.items() if name != "scale"}
    parameters = parameters_of(chapter).at(scale, **others)
    parameters.files()
    return typed, parameters


def run_chapter(chapter: str, given: Mapping[str, object], *, progress: bool = True) -> tuple[Path, Path]:
    """Execute a chapter's notebook with other parameters.

    Parameters
    ----------
    chapter : str
    given : mapping of name to value
        Strings are converted to the types that the notebook declares.
    progress : bool
        Show the cells done.

    Returns
    -------
    notebook, result : Path
        ``runs/<chapter>/<hash>.ipynb`` and ``.nc``.

    Raises
    ------
    InputError
        For parameters that do not fit, before anything starts.
    ChapterError
        If a cell fails.
    """
    typed, parameters = checked(chapter, given)
    result = run_path(chapter, parameters)
    output = execute(
        notebook_of(chapter), result.with_suffix(".ipynb"), typed, cwd=Path.cwd(), progress=progress
    )
    return output, result


def sweep_notebooks(chapter: str, axes: Axes, *, progress: bool = True) -> list[Path]:
    """Execute a chapter's notebook for every point of a grid; points with a finished run are skipped."""
    written = []
    varied = [name for name in axes if name != "scale"]
    for parameters in grid(chapter, axes):
        result = run_path(chapter, parameters)
        if not (result.is_file() and result.with_suffix(".ipynb").is_file()):
            values: dict[str, object] = {name: getattr(parameters, name) for name in varied}
            run_chapter(chapter, {"scale": parameters.scale} | values, progress=progress)
        written.append(result)
    return written


def parse_axes(chapter: str, given: Mapping[str, Sequence[str]]) -> dict[str, list[Any]]:
    """Return the values of each swept parameter in the types that the chapter declares."""
    notebook = notebook_of(chapter)
    return {
        name: [check_parameters(notebook, {name: value})[name] for value in values]
        for name, values in given.items()
    }


def stored_runs() -> list[Path]:
    """Return the files of all chapter runs and sweeps, oldest first."""
    folder = runs_folder()
    found = [*folder.glob("*/*.nc"), *folder.glob("*/sweeps/*.nc")]
    return sorted(found, key=lambda path: path.stat().st_mtime)


def find_run(name: str) -> Path:
    """Return the run whose file is `name` or whose hash begins with it.

    Raises
    ------
    InputError
        If there is none or more than one.
    """
    if Path(name).is_file():
        check_hdf5(Path(name), netcdf=True)  # it may come from anywhere
        return Path(name)
    found = [
        path
        for path in stored_runs()
        if path.stem.startswith(name) or path.stem.split("-")[-1].startswith(name)
    ]
    if len(found) != 1:
        many = f"{len(found)} runs" if found else "no run"
        raise InputError(f"{many} named {name!r}: see `exitwave runs list`")
    return found[0]


def scalars(record: xr.Dataset) -> dict[str, float]:
    """Return the scalar quantities of a run, and the mean of those along a sweep's axes."""
    return {
        str(name): float(np.mean(variable.values))
        for name, variable in record.data_vars.items()
        if variable.dtype.kind in "iuf" and variable.size <= 1000 and variable.size > 0
    }


def compare(first: Path, second: Path) -> tuple[dict[str, tuple[Any, Any]], dict[str, tuple[float, float]]]:
    """Return the parameters in which two runs differ, and the quantities that both have."""
    records_ = [records.load(path) for path in (first, second)]
    one, two = (records.provenance_of(each).get("parameters", {}) for each in records_)
    differing = {
        name: (one.get(name), two.get(name)) for name in sorted(one | two) if one.get(name) != two.get(name)
    }
    values = [scalars(each) for each in records_]
    common = {name: (values[0][name], values[1][name]) for name in values[0] if name in values[1]}
    return differing, common
