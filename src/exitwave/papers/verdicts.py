"""The claims of the papers and the rules that judge them.

A verdict is computed from stored results by rules that stand in ``claims.yml`` before a claim is
first run; nothing here is typed in after a result.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from importlib import resources
from typing import Any, Literal

import numpy as np
import xarray as xr
import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from exitwave import metrics
from exitwave.errors import InputError

PAPERS = ("ede2020", "larsen2022", "cao2020", "zhou2020", "webb2025")
# With what follows no paper, and so has runs but no claims.
CHAPTERS = (*PAPERS, "comparison")
Verdict = Literal["exceeded", "reproduced", "partly", "not reproduced", "not run", "waived", "stale"]
MIN_SEEDS = 3

_INEQUALITY = re.compile(r"(?P<left>\w+) *(?P<sign>[<>]) *(?P<right>[\w.+-]+)")


class Run(BaseModel):
    """A study at fixed settings, repeated over seeds; several claims may read one run.

    Attributes
    ----------
    release : int
        Of how many seeds, from 0, the weights of the trained network are kept with the project.
    without : list of str
        Quantities of the study that are not kept, such as pictures that no figure shows.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    study: str
    settings: dict[str, Any]
    seeds: int
    release: int = Field(0, ge=0)
    without: list[str] = []

    @model_validator(mode="after")
    def _check_release(self) -> Run:
        if self.release > self.seeds:
            raise ValueError(f"{self.study}: releases {self.release} networks of {self.seeds} seeds")
        return self


class Claim(BaseModel):
    """One row of the ledger.

    Attributes
    ----------
    value, std : number or list of numbers, optional
        What the paper prints.
    quantities : list of str
        Variables of the run's result that answer the claim, one for each value.
    inequalities : list of str
        ``a > b`` or ``a < b`` between quantities, or a quantity and a number, for each of which the
        95% interval of a paired bootstrap over the seeds must exclude zero.
    better : {"high", "low"}, optional
        The side on which a value exceeds the claim; without it only the tolerance counts.
    also : dict of name to run
        Further runs, of the same seeds, whose quantities are read as ``name_quantity``.
    beside : list of str
        Further quantities to show with the verdict, which do not enter it.
    sensitivity : list of str, or of dict of run to run
        Runs with one setting changed, judged by the same rule: the reason behind a verdict. A name stands in
        place of `run`; a dictionary names runs of the claim and those in their place.
    untested : str
        What it would need to test the reason of a verdict, where no run that could be made here does.
    waiver : dict of scale to reason
        Why a row cannot be run at a scale, set before it is tried.
    timed : bool
        What is measured says more of the machine than of the row: it is not computed again to check it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    where: str
    kind: Literal["value", "order", "ratio", "figure", "study"]
    statement: str
    value: float | list[float] | None = None
    std: float | list[float] | None = None
    unit: str = "1"
    run: str | None = None
    also: dict[str, str] = {}
    quantities: list[str] = []
    inequalities: list[str] = []
    better: Literal["high", "low"] | None = None
    tolerance: float = 0.1
    min_samples: int = MIN_SEEDS
    beside: list[str] = []
    sensitivity: list[str | dict[str, str]] = []
    untested: str = ""
    waiver: dict[str, str] = {}
    timed: bool = False
    note: str = ""

    @property
    def values(self) -> list[float]:
        """The claimed values as a list, empty where the claim is no number."""
        if self.value is None:
            return []
        return list(self.value) if isinstance(self.value, list) else [self.value]

    @property
    def runs(self) -> list[str]:
        """The runs that the claim reads."""
        return [] if self.run is None else [self.run, *self.also.values()]

    @property
    def trials(self) -> list[dict[str, str]]:
        """The sensitivity tests, each as runs of the claim with those that stand in their place."""
        return [{str(self.run): each} if isinstance(each, str) else each for each in self.sensitivity]

    @property
    def tried(self) -> list[str]:
        """The runs of the sensitivity tests."""
        return list(dict.fromkeys(run for trial in self.trials for run in trial.values()))

    @property
    def judged_by(self) -> list[str]:
        """The quantities that enter the verdict."""
        sides = [side for text in self.inequalities for side in _parse(text)[::2] if not _is_number(side)]
        return list(dict.fromkeys([*self.quantities, *sides]))

    def source_of(self, quantity: str) -> tuple[str, str]:
        """Return the run that a quantity is read from and its name there."""
        for name, run in self.also.items():
            if quantity.startswith(f"{name}_"):
                return run, quantity.removeprefix(f"{name}_")
        return str(self.run), quantity

    @model_validator(mode="after")
    def _check_rules(self) -> Claim:
        if self.run is None:
            return self
        if self.kind in ("value", "ratio"):
            if not self.values or len(self.quantities) != len(self.values):
                raise ValueError(f"{self.id}: needs one quantity for each value")
        elif not self.inequalities:
            raise ValueError(f"{self.id}: needs inequalities to be judged by")
        for text in self.inequalities:
            _parse(text)
        return self


class PaperClaims(BaseModel):
    """The content of one paper's claims.yml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    claims: list[Claim]
    runs: dict[str, Run] = {}
    specimens: dict[str, Run] = {}

    @model_validator(mode="after")
    def _check_runs(self) -> PaperClaims:
        for claim in self.claims:
            for name in [*claim.runs, *claim.tried]:
                if name not in self.runs:
                    raise ValueError(f"{claim.id}: no run {name!r}")
            for name in (each for trial in claim.trials for each in trial):
                if name not in claim.runs:
                    raise ValueError(f"{claim.id}: reads no run {name!r} that another could stand for")
        return self


def load_claims(paper: str) -> PaperClaims:
    """Return the claims of a paper, or the runs of a chapter that follows none.

    Raises
    ------
    InputError
        For an unknown paper.
    """
    if paper not in CHAPTERS:
        raise InputError(f"unknown paper {paper!r}: use one of {', '.join(CHAPTERS)}")
    text = resources.files(f"exitwave.papers.{paper}").joinpath("claims.yml").read_text(encoding="utf-8")
    return PaperClaims.model_validate(yaml.safe_load(text))


def _parse(inequality: str) -> tuple[str, str, str]:
    match = _INEQUALITY.fullmatch(inequality.strip())
    if match is None:
        raise ValueError(f"cannot read the inequality {inequality!r}: write 'a > b' or 'a < 0.5'")
    return match["left"], match["sign"], match["right"]


def _samples(result: xr.Dataset, name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    if name not in result:
        raise InputError(f"the stored result has no quantity {name!r}: run `exitwave reproduce` again")
    return np.asarray(result[name].transpose("seed").values, float)


def margin(inequality: str, result: xr.Dataset) -> tuple[float, float, float]:
    """Return by how much an inequality holds: mean and 95% interval over seeds, positive if it holds.

    There is no interval (NaN) for fewer than two seeds or where a value is not finite.

    Parameters
    ----------
    inequality : str
        ``a > b``, sides being quantities of `result` or the right one a number.
    result : xarray.Dataset
        Quantities along ``seed``.
    """
    left, sign, right = _parse(inequality)
    other = float(right) if _is_number(right) else _samples(result, right)
    difference = (_samples(result, left) - other) * (1 if sign == ">" else -1)
    if difference.size < 2 or not np.isfinite(difference).all():
        return float(difference.mean()), math.nan, math.nan
    return metrics.paired_bootstrap(difference, seed=0)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def judge(claim: Claim, result: xr.Dataset) -> Verdict:
    """Return the verdict on a claim from the stored result of its run.

    ``value`` and ``ratio``: each mean within the relative tolerance of the claim is reproduced, and
    better than that is exceeded. Otherwise every inequality must hold. Where some parts hold and
    others do not, the verdict is ``partly``. Too few seeds or samples are ``not run``.
    """
    seeds = result.sizes.get("seed", 0)
    by_value = claim.kind in ("value", "ratio")
    if seeds < (1 if by_value else MIN_SEEDS) or count_samples(result) < claim.min_samples:
        return "not run"
    if by_value:
        parts = [
            _judge_value(claim, value, float(_samples(result, name).mean()))
            for value, name in zip(claim.values, claim.quantities, strict=True)
        ]
    else:
        parts = [
            "reproduced" if margin(text, result)[1] > 0 else "not reproduced" for text in claim.inequalities
        ]
    if all(part == "exceeded" for part in parts):
        return "exceeded"
    held = [part != "not reproduced" for part in parts]
    if all(held):
        return "reproduced"
    return "partly" if any(held) else "not reproduced"


def _judge_value(claim: Claim, value: float, measured: float) -> Verdict:
    if abs(measured - value) <= claim.tolerance * abs(value):
        return "reproduced"
    higher, lower = measured > value, measured < value
    better = (higher and claim.better == "high") or (lower and claim.better == "low")
    return "exceeded" if better else "not reproduced"


def count_samples(result: xr.Dataset) -> int:
    """Return the number of independent samples: the sum of ``samples``, else one for each seed."""
    if "samples" in result:
        return int(result["samples"].sum())
    return result.sizes.get("seed", 0)


def means(names: list[str], result: xr.Dataset) -> Mapping[str, float]:
    """Return the mean over seeds of each quantity."""
    return {name: float(_samples(result, name).mean()) for name in names}
