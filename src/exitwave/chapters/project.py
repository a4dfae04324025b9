"""Which chapters there are, and their parameters and studies."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import xarray as xr

from exitwave.errors import InputError
from exitwave.papers.parameters import PaperParameters


def chapters() -> tuple[str, ...]:
    """Return the papers that have studies, which are those with a chapter."""
    papers = Path(__file__).parents[1] / "papers"
    return tuple(sorted(path.parent.name for path in papers.glob("*/studies.py")))


def _chapter_module(paper: str, module: str) -> object:
    if paper not in chapters():
        raise InputError(f"unknown chapter {paper!r}: use one of {', '.join(chapters())}")
    return import_module(f"exitwave.papers.{paper}.{module}")


def parameters_of(paper: str) -> type[PaperParameters]:
    """Return the parameter model of a chapter.

    Raises
    ------
    InputError
        If there is no such chapter.
    """
    model: type[PaperParameters] = _chapter_module(paper, "parameters").Parameters  # type: ignore[attr-defined]
    return model


def studies_of(paper: str) -> dict[str, Callable[..., xr.Dataset]]:
    """Return the studies of a chapter by name.

    Raises
    ------
    InputError
        If there is no such chapter.
    """
    studies: dict[str, Callable[..., xr.Dataset]] = _chapter_module(paper, "studies").STUDIES  # type: ignore[attr-defined]
    return studies


def study_of(paper: str, name: str) -> Callable[..., xr.Dataset]:
    """Return a study function of a chapter.

    Raises
    ------
    InputError
        If there is no such chapter or study.
    """
    studies = studies_of(paper)
    if name not in studies:
        raise InputError(f"unknown study {name!r} of {paper}: use one of {', '.join(studies)}")
    return studies[name]


def trains(paper: str, study: str) -> bool:
    """Tell whether a study trains a network: it takes ``how`` (:class:`exitwave.networks.plan.Training`)."""
    return "how" in inspect.signature(study_of(paper, study)).parameters
