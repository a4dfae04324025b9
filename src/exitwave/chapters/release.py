"""Trained weights that come with the project: taken from the runs, put where studies look for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from exitwave.chapters.points import Point
from exitwave.chapters.train import Job
from exitwave.networks.released import write_released
from exitwave.papers.parameters import Scale
from exitwave.project import data_folder, released_name, runs_folder


def release(paper: str, scale: Scale, points: Mapping[str, Sequence[Point]]) -> tuple[list[Path], str | None]:
    """Copy the weights of trained networks out of the runs.

    At smoke scale nothing is released: there, studies use the networks of workshop scale.

    Parameters
    ----------
    paper : str
    scale : {"smoke", "workshop", "gpu", "paper"}
    points : mapping of str to sequence of Point
        Those that are to be released of each run.

    Returns
    -------
    written : list of Path
        ``data/<paper>/weights/<run>-<seed>.safetensors``; at gpu and paper scale, where they are larger,
        ``runs/<paper>/weights/<run>-<seed>-<scale>.safetensors``.
    missing : str or None
        What to say if some are not there, as where ``exitwave reproduce`` has trained a network itself.
    """
    if scale == "smoke":
        return [], None
    folder = (data_folder() if scale == "workshop" else runs_folder()) / paper / "weights"
    written, missing = [], []
    for job in (Job(run, point) for run, each in points.items() for point in each):
        if not job.weights.is_file():
            missing.append(job)
            continue
        seed = job.point.parameters.seed
        about = {"run": job.run, "seed": seed, "point": job.point.key}
        written.append(write_released(job.weights, folder / released_name(job.run, seed, scale), about))
    return written, _remedy(paper, scale, missing) if missing else None


def _remedy(paper: str, scale: Scale, missing: Sequence[Job]) -> str:
    runs = " ".join(f"--run {run}" for run in dict.fromkeys(job.run for job in missing))
    seeds = " ".join(f"--seed {seed}" for seed in sorted({job.point.parameters.seed for job in missing}))
    return (
        f"no weights of {', '.join(job.name for job in missing)} to release: train with "
        f"`exitwave train {paper} --scale {scale} {runs} {seeds}`, then reproduce again"
    )
