"""Where a checkout keeps its chapters, stored results and runs."""

from __future__ import annotations

import os
from pathlib import Path

from exitwave.errors import InputError


def project_root() -> Path:
    """Return the checkout that holds notebooks/, book/ and data/.

    ``EXITWAVE_PROJECT`` names it; otherwise it is looked for upwards from the working directory and
    from the sources.

    Raises
    ------
    InputError
        If there is none.
    """
    named = os.environ.get("EXITWAVE_PROJECT")
    starts = [Path(named)] if named else [Path.cwd(), Path(__file__).resolve()]
    for start in starts:
        for folder in (start, *start.parents):
            if (folder / "_toc.yml").is_file() and (folder / "notebooks").is_dir():
                return folder
    where = f"in EXITWAVE_PROJECT={named}" if named else "here or above"
    raise InputError(f"no exitwave project {where}: run inside a clone, or set EXITWAVE_PROJECT to one")


def runs_folder() -> Path:
    """Return where runs are written: ``EXITWAVE_RUNS``, else ``runs/`` of the project."""
    named = os.environ.get("EXITWAVE_RUNS")
    return Path(named) if named else project_root() / "runs"


def data_folder() -> Path:
    """Return where reproduced results are kept: ``EXITWAVE_DATA``, else ``data/`` of the project."""
    named = os.environ.get("EXITWAVE_DATA")
    return Path(named) if named else project_root() / "data"


def specimen_file(paper: str, name: str) -> Path:
    """Return the file of a stored specimen: in :func:`data_folder` if it is there, else in the project's.

    Raises
    ------
    InputError
        If it is in neither.
    """
    part = Path(paper) / "specimens" / f"{name}.nc"
    for folder in (data_folder(), project_root() / "data"):
        if (folder / part).is_file():
            return folder / part
    raise InputError(
        f"the stored specimen data/{part.as_posix()} is missing: make it again with "
        f"`exitwave reproduce {paper} --specimens`"
    )


def specimen_name(name: str, scale: str) -> str:
    """Return the name of the file of a specimen, which smoke and workshop scale share."""
    return f"{name}.nc" if scale in ("smoke", "workshop") else f"{name}-{scale}.nc"


def specimen_of_scale(paper: str, name: str, scale: str) -> Path:
    """Return the file of a specimen that is larger at gpu and paper scale, where it may be among the runs.

    Raises
    ------
    InputError
        If it is not there.
    """
    if specimen_name(name, scale) == f"{name}.nc":
        return specimen_file(paper, name)
    part = Path(paper) / "specimens" / specimen_name(name, scale)
    for folder in (data_folder(), project_root() / "data", runs_folder()):
        if (folder / part).is_file():
            return folder / part
    raise InputError(
        f"the specimen {part.as_posix()} is missing: make it with "
        f"`exitwave reproduce {paper} --specimens --scale {scale}`"
    )


def released_name(run: str, seed: int, scale: str) -> str:
    """Return the name of the file of a released network, which smoke and workshop scale share."""
    return Path(specimen_name(f"{run}-{seed}", scale)).stem + ".safetensors"


def released_file(paper: str, run: str, seed: int, scale: str = "workshop") -> Path:
    """Return the file of a released network: in :func:`data_folder` if it is there, else in the project's.

    Those of gpu and paper scale, which are larger, may be among the runs.

    Raises
    ------
    InputError
        If it is not there.
    """
    part = Path(paper) / "weights" / released_name(run, seed, scale)
    folders = [data_folder(), project_root() / "data"]
    for folder in folders if scale in ("smoke", "workshop") else [*folders, runs_folder()]:
        if (folder / part).is_file():
            return folder / part
    at = "" if scale in ("smoke", "workshop") else f" --scale {scale}"
    raise InputError(
        f"the released network data/{part.as_posix()} is missing: make it with `exitwave train {paper}{at} "
        f"--run {run} --seed {seed}`, then `exitwave reproduce {paper}{at} --only {run}`"
    )


def released_files(paper: str, run: str, scale: str = "workshop") -> list[Path]:
    """Return the files of the released networks of a run, from seed 0; none if none is there."""
    found: list[Path] = []
    try:
        while True:
            found.append(released_file(paper, run, len(found), scale))
    except InputError:
        return found
