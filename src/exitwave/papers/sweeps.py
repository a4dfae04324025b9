"""Sweeps that come with the project: a study over a grid of parameters, declared in ``sweeps.yml``."""

from __future__ import annotations

from importlib import resources
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator


class Sweep(BaseModel):
    """A study over a grid, repeated over seeds.

    Attributes
    ----------
    study : str
    title : str
        What is asked, in words.
    axes : dict of name to values
        Parameters that are varied, the last one fastest.
    settings : dict
        Parameters that are the same at all points.
    seeds : int
        Repetitions, from seed 0.
    keep : list of str
        Quantities of the study that are stored; all if empty.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    study: str
    title: str
    axes: dict[str, list[Any]] = Field(min_length=1)
    settings: dict[str, Any] = {}
    seeds: int = Field(1, ge=1)
    keep: list[str] = []

    @model_validator(mode="after")
    def _check_axes(self) -> Sweep:
        twice = {"seed", "scale", *self.settings} & set(self.axes)
        if twice or "scale" in self.settings or "seed" in self.settings:
            raise ValueError(f"{self.study}: {', '.join(sorted(twice)) or 'scale, seed'} set twice")
        return self

    def grid(self, scale: str) -> dict[str, list[Any]]:
        """Return the values of everything that is set, seeds slowest; what has one value is no axis."""
        fixed = {name: [value] for name, value in self.settings.items()}
        return {"scale": [scale], **fixed, "seed": list(range(self.seeds)), **self.axes}


def load_sweeps(paper: str) -> dict[str, Sweep]:
    """Return the sweeps of a paper by name; none where it has no ``sweeps.yml``."""
    file = resources.files("exitwave.papers").joinpath(paper, "sweeps.yml")
    if not file.is_file():
        return {}
    found = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    return {name: Sweep.model_validate(each) for name, each in found.items()}
