"""The only writer of data/: runs what the claims need, and checks what is stored."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from exitwave import records
from exitwave.chapters.points import Point, Report, compute, run_points
from exitwave.chapters.project import parameters_of, study_of, trains
from exitwave.chapters.release import release
from exitwave.chapters.sources import source_hash
from exitwave.chapters.stored_sweeps import selected_sweeps, store_sweeps
from exitwave.errors import InputError
from exitwave.papers.parameters import SCALES, PaperParameters, Scale
from exitwave.papers.verdicts import PAPERS, Claim, Run, load_claims
from exitwave.project import data_folder, runs_folder, specimen_name

# How far a quantity computed again may lie from the stored one, over the largest stored value of its
# kind: thousands of float32 steps on another processor do not end on the same bits.
RECOMPUTED_TOLERANCE = 0.02


def run_file(paper: str, scale: str, run: str) -> Path:
    """Return where the result of a run is kept."""
    return data_folder() / paper / scale / f"{run}.nc"


def run_points_of(paper: str, run: Run, scale: Scale) -> list[Point]:
    """Return one point for each seed of a run."""
    model = parameters_of(paper)
    return [Point(paper, run.study, model.at(scale, **run.settings, seed=seed)) for seed in range(run.seeds)]


def selected_runs(paper: str, only: str | None = None) -> dict[str, Run]:
    """Return the runs of a paper, those of one claim, or the one of this name; none for a sweep's name.

    Raises
    ------
    InputError
        For an unknown paper, claim, run or sweep, or a claim that has no run yet.
    """
    claims = load_claims(paper)
    if only is None:
        if not claims.runs:
            raise InputError(f"{paper} has no runs yet: none of its claims can be reproduced")
        return claims.runs
    if only in claims.runs:
        return {only: claims.runs[only]}
    found = [claim for claim in claims.claims if claim.id == only]
    if not found and selected_sweeps(paper, only):
        return {}
    if not found:
        raise InputError(
            f"unknown claim, run or sweep {only!r} of {paper}: see `exitwave claims --paper {paper}`"
        )
    if found[0].run is None:
        raise InputError(f"{only} has no run yet: it cannot be reproduced")
    return {name: claims.runs[name] for name in (*found[0].runs, *found[0].tried)}


def reproduce(paper: str, scale: Scale, *, only: str | None = None, report: Report, **how: Any) -> list[Path]:
    """Run the studies that the claims need, and the sweeps of a paper, and store every quantity.

    Parameters
    ----------
    paper : str
    scale : {"smoke", "workshop", "gpu", "paper"}
    only : str, optional
        Identifier of one claim, or name of one run or sweep.
    report, **how
        See :func:`exitwave.chapters.points.run_points`.

    Returns
    -------
    list of Path
        ``data/<paper>/<scale>/<run>.nc``, one for each run, the released weights
        (:func:`exitwave.chapters.release.release`), and one for each sweep.

    Raises
    ------
    InputError
        After all is stored, if weights that are to be released are missing, or a quantity that is not to be
        kept.
    """
    runs = selected_runs(paper, only)
    points = {name: run_points_of(paper, run, scale) for name, run in runs.items()}
    # Before anything is computed: other runs use the released networks.
    wanted = {name: each[: runs[name].release] for name, each in points.items()}
    released, missing = release(paper, scale, wanted)
    # All at once, so that no worker waits for the last point of a run.
    results = iter(run_points([point for each in points.values() for point in each], report=report, **how))
    stored = []
    for name, each in points.items():
        result = _collect(paper, scale, name, each, [next(results) for _ in each])
        for quantity in runs[name].without:
            if quantity not in result:
                missing = (
                    f"{name} is to be without {quantity!r}, which its study does not give: correct claims.yml"
                )
        kept = result.drop_vars(runs[name].without, errors="ignore")
        stored.append(records.save(kept, run_file(paper, scale, name)))
    stored += released + store_sweeps(paper, scale, only=only, report=report, **how)
    if missing:
        raise InputError(missing)
    return stored


def missing_specimen(paper: str, parameters: PaperParameters) -> str | None:
    """Return the specimen to be made next before a study can run; None if it has all that it reads."""
    try:
        parameters.files()
    except InputError as error:
        for name, run in load_claims(paper).specimens.items():
            # The error names the first file that is missing, whose own study may miss one.
            if f"/{specimen_name(name, parameters.scale)} " in str(error):
                itself = parameters_of(paper).at(parameters.scale, **run.settings)
                return missing_specimen(paper, itself) or name
        raise
    return None


def reproduce_specimens(
    paper: str, scale: Scale = "workshop", *, only: Sequence[str] = (), report: Report, **how: Any
) -> list[Path]:
    """Make the specimens again that the studies of a paper start from.

    Parameters
    ----------
    paper : str
    scale : {"smoke", "workshop", "gpu", "paper"}
    only : sequence of str
        Names of those that are wanted; all if empty.
    report, **how
        See :func:`exitwave.chapters.points.run_points`.

    Returns
    -------
    list of Path
        ``data/<paper>/specimens/<name>.nc``, one for each; at gpu and paper scale, where they are large,
        ``runs/<paper>/specimens/<name>-<scale>.nc``.

    Raises
    ------
    InputError
        If the paper has none, or none of such a name.
    """
    folder = data_folder() if scale in ("smoke", "workshop") else runs_folder()
    written = []
    for name, run in selected_specimens(paper, only).items():
        points = run_points_of(paper, run, scale)
        result = _collect(paper, scale, name, points, run_points(points, report=report, **how))
        path = folder / paper / "specimens" / specimen_name(name, scale)
        written.append(records.save(result, path))
    return written


def selected_specimens(paper: str, only: Sequence[str] = ()) -> dict[str, Run]:
    """Return the stored specimens of a paper, or those of these names.

    Raises
    ------
    InputError
        If the paper has none, or none of such a name.
    """
    specimens = load_claims(paper).specimens
    if not specimens:
        raise InputError(f"{paper} has no stored specimens: leave out --specimens")
    for name in only:
        if name not in specimens:
            raise InputError(f"unknown specimen {name!r} of {paper}: use one of {', '.join(specimens)}")
    return {name: run for name, run in specimens.items() if name in only or not only}


def _collect(
    paper: str, scale: str, name: str, points: Sequence[Point], results: Sequence[xr.Dataset]
) -> xr.Dataset:
    made = [records.provenance_of(each) for each in results]
    seeds = [point.parameters.seed for point in points]
    coordinate = xr.Variable("seed", seeds, {"units": "1", "long_name": "seed of specimen and noise"})
    bare = [each.drop_attrs(deep=False) for each in results]
    result = xr.concat(
        bare, dim="seed", coords="minimal", compat="override", join="outer", combine_attrs="override"
    )
    parameters = points[0].parameters.model_dump()
    del parameters["seed"]
    provenance = records.provenance(
        shlex.join(["exitwave", "reproduce", paper, "--scale", scale]),
        paper=paper,
        scale=scale,
        parameters=parameters,
        seconds=sum(each["seconds"] for each in made),
        device=made[0]["device"],
        study=points[0].study,
        run=name,
        source=points[0].source,
        seeds=seeds,
        files=points[0].parameters.digests(),
    )
    return records.with_provenance(result.assign_coords(seed=coordinate), provenance)


def is_stale(stored: xr.Dataset, paper: str, run: Run, scale: Scale) -> bool:
    """Tell whether sources or parameters that made a stored result have changed since."""
    made = records.provenance_of(stored)
    now = parameters_of(paper).at(scale, **run.settings)
    parameters = now.model_dump()
    defaults = parameters_of(paper)().model_dump()
    then = defaults | made.get("parameters", {})
    changed = any(then[name] != value for name, value in parameters.items() if name != "seed")
    # A file that came with the project, such as a stored specimen, may have been made again since.
    changed = changed or made.get("files", {}) != now.digests()
    return changed or made.get("source") != source_hash(study_of(paper, run.study))


def _scale(stored: xr.Dataset, names: Sequence[str], name: str) -> float:
    """Return the largest magnitude among the quantities of a claim that share a unit with one of them."""
    units = stored[name].attrs["units"]
    alike = [stored[each].values for each in names if stored[each].attrs["units"] == units]
    return float(np.nanmax(np.abs(np.concatenate(alike))))


@dataclass(frozen=True)
class Recomputed:
    """One stored number beside the same number computed again."""

    claim: str
    quantity: str
    seed: int
    stored: float
    again: float
    scale: float
    spread: float = 0.0

    @property
    def agrees(self) -> bool:
        """Whether the two are within the tolerance fixed in this module, over the scale of the quantity.

        Or within `spread`, where rounding on another processor makes another network of a training.
        """
        tolerance = max(RECOMPUTED_TOLERANCE * self.scale, self.spread)
        return bool(np.isclose(self.again, self.stored, rtol=0, atol=tolerance, equal_nan=True))


def stored_claims(scale: Scale) -> list[tuple[str, Claim]]:
    """Return (paper, claim) of every claim that has a stored result at a scale."""
    return [
        (paper, claim)
        for paper in PAPERS
        for claim in load_claims(paper).claims
        if claim.run is not None and all(run_file(paper, scale, run).is_file() for run in claim.runs)
    ]


def recompute(
    rows: int, seed: int, scale: Scale, *, device: str = "cpu", minutes: float = math.inf
) -> list[Recomputed]:
    """Compute some stored rows of the ledger again, one run and replicate of each, chosen by a seed.

    Nothing is written.

    Parameters
    ----------
    rows, seed : int
    scale : {"smoke", "workshop", "gpu", "paper"}
    device : str
    minutes : float
        Rows are passed over whose run took longer, when it was stored, than is left of this.

    Raises
    ------
    InputError
        If an unknown scale is named, nothing is stored at it, or all takes longer.
    """
    if scale not in SCALES:
        raise InputError(f"unknown scale {scale!r}: use one of {', '.join(SCALES)}")
    candidates = [each for each in stored_claims(scale) if not each[1].timed]
    if not candidates:
        raise InputError(f"nothing is stored at scale {scale}: run `exitwave reproduce` first")
    generator = np.random.default_rng(seed)
    found: list[Recomputed] = []
    left, checked = minutes, 0
    for paper, claim in (candidates[i] for i in generator.permutation(len(candidates))):
        # One run of several is enough: some take minutes.
        run = str(generator.choice(list(dict.fromkeys(claim.source_of(name)[0] for name in claim.judged_by))))
        stored = records.load(run_file(paper, scale, run))
        replicate = int(generator.choice(stored["seed"].values))
        takes = float(records.provenance_of(stored)["seconds"]) / stored.sizes["seed"] / 60
        if takes > left:
            continue
        left, checked = left - takes, checked + 1
        found += _recomputed(paper, claim, run, replicate, scale, device)
        if checked == rows:
            break
    if not checked:
        raise InputError(f"no stored row took less than {minutes:g} minutes: give more")
    return found


def _recomputed(
    paper: str, claim: Claim, name: str, replicate: int, scale: Scale, device: str
) -> list[Recomputed]:
    """Compute the quantities of a claim that come from one run again."""
    run = load_claims(paper).runs[name]
    stored = records.load(run_file(paper, scale, name))
    quantities = [each for source, each in map(claim.source_of, claim.judged_by) if source == name]
    parameters: PaperParameters = parameters_of(paper).at(scale, **run.settings, seed=replicate)
    trained = trains(paper, run.study)
    # In one thread, sums have one order: the same network, bit for bit, on the same processor.
    again = compute(paper, run.study, parameters.model_dump(), device, 1 if trained else None)
    return [
        Recomputed(
            claim.id,
            each,
            replicate,
            float(stored[each].sel(seed=replicate)),
            float(again[each]),
            _scale(stored, quantities, each),
            float(np.ptp(stored[each].values)) if trained else 0.0,
        )
        for each in quantities
        if stored[each].attrs["units"] != "s"  # a time says more of the machine than of the row
    ]
