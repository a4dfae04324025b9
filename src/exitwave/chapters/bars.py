"""What the project promises of time, memory and size (``bars.yml``), judged by what was measured.

A bar that was not measured has not been met: a benchmark that is missing or failed, a number that is not
finite, a program to compare with that is not installed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from exitwave.errors import InputError

Verdict = Literal["met", "not met", "known not met", "not measured", "no bar"]

_LIST = Path(__file__).with_name("bars.yml")


class Row(BaseModel):
    """One number of one benchmark.

    Attributes
    ----------
    benchmark : str
        Below ``tests/benchmarks``, as pytest names it.
    field : str
        Of its ``extra_info``, else of its statistics (s).
    program : str
        Whose number it is; empty for this package.
    factor : float
        By which it is multiplied.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    benchmark: str
    field: str = "min"
    program: str = ""
    factor: float = Field(1.0, gt=0)


class Bar(BaseModel):
    """A figure, and what is promised of it; see the head of ``bars.yml``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    says: str
    chapter: str
    measured: Row
    beside: tuple[Row, ...] = ()
    unit: str = "times"
    least: float | None = None
    most: float | None = None
    aim: float | None = None
    equal: str | None = None
    known: str | None = None
    optional: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.least is not None and self.most is not None:
            raise ValueError(f"{self.name} has two bars: give least or most")
        if (self.unit == "times") != bool(self.beside):
            raise ValueError(f"{self.name}: a ratio has rows beside it and no unit, any other figure a unit")
        if self.equal is not None and not self.beside:
            raise ValueError(f"{self.name} has nothing to be equal to")
        return self

    @property
    def rows(self) -> tuple[Row, ...]:
        """Every row that it reads."""
        return (self.measured, *self.beside)

    @property
    def promised(self) -> bool:
        """Whether there is a bar at all."""
        return self.least is not None or self.most is not None

    def holds(self, value: float) -> bool:
        """Return whether a value meets the bar."""
        return not (
            (self.least is not None and value < self.least) or (self.most is not None and value > self.most)
        )


@dataclass(frozen=True)
class Measured:
    """What was measured.

    Attributes
    ----------
    numbers : mapping
        For each benchmark that passed, its numbers.
    missing : mapping
        Why others have none.
    skipped : frozenset of str
        Those of them that say that something is not here.
    about : mapping
        ``machine``, ``made``, ``commit``, ``load``, ``threads``, ``versions``.
    """

    numbers: Mapping[str, Mapping[str, float]]
    missing: Mapping[str, str] = field(default_factory=dict)
    skipped: frozenset[str] = frozenset()
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Judged:
    """A bar and what became of it.

    Attributes
    ----------
    bar : Bar
    verdict : str
    value : float
        In the unit of the bar; nan if it was not measured.
    note : str
        What a reader must know beside the verdict.
    ours : float
        The number of this package; nan if there is none.
    theirs : mapping
        Of each program beside it, the best number.
    counts : bool
        Whether it makes the whole fail.
    """

    bar: Bar
    verdict: Verdict
    value: float = math.nan
    note: str = ""
    ours: float = math.nan
    theirs: Mapping[str, float] = field(default_factory=dict)
    counts: bool = False

    def as_json(self, about: Mapping[str, Any]) -> dict[str, Any]:
        """Return it as one line of a report: what is not finite becomes None."""
        bar, finite = self.bar, math.isfinite(self.value)
        aimed = bar.model_copy(update={"least": bar.aim, "most": None} if bar.least is not None else {})
        return {
            "name": bar.name, "says": bar.says, "chapter": bar.chapter,
            "value": _rounded(self.value), "unit": bar.unit, "least": bar.least, "most": bar.most,
            "aim": bar.aim, "aim_met": None if bar.aim is None or not finite else aimed.holds(self.value),
            "pass": self.verdict == "met", "verdict": self.verdict, "note": self.note,
            "exitwave": _rounded(self.ours), "beside": {n: _rounded(v) for n, v in self.theirs.items()},
            "machine": about.get("machine"), "threads": about.get("threads"), "load": about.get("load"),
            "made": about.get("made"), "commit": about.get("commit"),
        }  # fmt: skip


def _rounded(value: float) -> float | None:
    return float(f"{value:.4g}") if math.isfinite(value) else None


@lru_cache(maxsize=1)
def known_bars() -> tuple[Bar, ...]:
    """Return the project's bars, in the order of the list."""
    return read_bars(_LIST.read_text(encoding="utf-8"))


def read_bars(text: str) -> tuple[Bar, ...]:
    """Return the bars of a YAML text.

    Raises
    ------
    InputError
        If a name comes twice, or an entry is not a bar.
    """
    try:
        bars = tuple(Bar(**entry) for entry in yaml.safe_load(text) or [])
    except (ValidationError, TypeError, yaml.YAMLError) as error:
        raise InputError(f"the list of bars cannot be read: {' '.join(str(error).split())}") from error
    names = [bar.name for bar in bars]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"bars of one name: {', '.join(twice)}: rename one")
    return bars


def selected(names: Sequence[str]) -> tuple[Bar, ...]:
    """Return the bars of these names, or all if none is named.

    Raises
    ------
    InputError
        If there is no such bar.
    """
    bars = known_bars()
    unknown = sorted(set(names) - {bar.name for bar in bars})
    if unknown:
        raise InputError(f"no bar {', '.join(unknown)}: there are {', '.join(bar.name for bar in bars)}")
    return tuple(bar for bar in bars if not names or bar.name in names)


# --- judging ------------------------------------------------------------------------------------


def judge(bar: Bar, measured: Measured, *, strict: bool = False) -> Judged:
    """Judge one bar.

    Parameters
    ----------
    bar : Bar
    measured : Measured
    strict : bool
        Bars that are known not to be met, and those that a machine lacks something for, count too.

    Returns
    -------
    Judged
        Nothing but a finite number that meets its bar is "met".
    """
    ours, why = _number(bar.measured, measured)
    if not math.isfinite(ours):
        return _unmeasured(bar, why, [bar.measured], measured, strict)
    if not bar.beside:
        return _of_value(bar, ours, ours, {}, "", strict=strict)
    theirs, absent, fair = _beside(bar, measured)
    if not theirs:
        gone = [row for row in bar.beside if row.benchmark in measured.missing]
        judged = _unmeasured(bar, "; ".join(absent), gone or list(bar.beside), measured, strict)
        return Judged(bar, judged.verdict, note=judged.note, ours=ours, counts=judged.counts)
    note = "; ".join([*absent, *fair])
    value = min(theirs.values()) / ours if ours > 0 else math.nan
    if not math.isfinite(value):
        return _unmeasured(bar, f"{bar.measured.benchmark} took no time", [bar.measured], measured, strict)
    return _of_value(bar, value, ours, theirs, note, strict=strict, fair=not fair)


def _number(row: Row, measured: Measured) -> tuple[float, str]:
    """Return the number of a row, or nan and why."""
    numbers = measured.numbers.get(row.benchmark)
    if numbers is None:
        return math.nan, measured.missing.get(row.benchmark, f"{row.benchmark} was not run")
    value = numbers.get(row.field)
    if value is None:
        return math.nan, f"{row.benchmark} gave no {row.field}"
    if not math.isfinite(value):
        return math.nan, f"{row.field} of {row.benchmark} is {value}"
    return value * row.factor, ""


def _beside(bar: Bar, measured: Measured) -> tuple[dict[str, float], list[str], list[str]]:
    """Return the best number of each program, those that have none, and where errors are not equal."""
    theirs: dict[str, float] = {}
    reasons: dict[str, str] = {}
    unfair = []
    for row in bar.beside:
        value, why = _number(row, measured)
        if not math.isfinite(value):
            reasons.setdefault(row.program, why)
            continue
        theirs[row.program] = min(value, theirs.get(row.program, math.inf))
        if bar.equal is None:
            continue
        mine, other = (
            _number(each.model_copy(update={"field": bar.equal, "factor": 1.0}), measured)[0]
            for each in (bar.measured, row)
        )
        if not mine <= other:
            unfair.append(f"{bar.equal} {mine:.3g} is not below {other:.3g} of {row.program}")
    absent = [f"without {program}: {why}" for program, why in reasons.items() if program not in theirs]
    return theirs, absent, unfair


def _of_value(
    bar: Bar, value: float, ours: float, theirs: Mapping[str, float], note: str, *, strict: bool,
    fair: bool = True,
) -> Judged:  # fmt: skip
    if not bar.promised:
        return Judged(bar, "no bar", value, note, ours, theirs)
    if bar.holds(value) and fair:
        if bar.known:
            note = "; ".join(filter(None, [note, "met, although the list says that it is not"]))
        return Judged(bar, "met", value, note, ours, theirs)
    if bar.known:
        note = "; ".join(filter(None, [note, " ".join(bar.known.split())]))
        return Judged(bar, "known not met", value, note, ours, theirs, counts=strict)
    return Judged(bar, "not met", value, note, ours, theirs, counts=True)


def _unmeasured(bar: Bar, why: str, rows: Sequence[Row], measured: Measured, strict: bool) -> Judged:
    """Return that a bar was not measured: excused only where it lacks what a machine may lack."""
    excused = bar.optional is not None and all(row.benchmark in measured.skipped for row in rows)
    note = f"needs {bar.optional}: {why}" if excused else why
    return Judged(bar, "not measured", note=note, counts=bar.promised and (strict or not excused))


def report(judged: Sequence[Judged], about: Mapping[str, Any]) -> str:
    """Return one line of JSON for each figure."""
    lines = [json.dumps(each.as_json(about), ensure_ascii=False, allow_nan=False) for each in judged]
    return "".join(f"{line}\n" for line in lines)


def summary(judged: Sequence[Judged]) -> str:
    """Return how many bars came out how, and which of them make the whole fail."""
    bars = [each for each in judged if each.bar.promised]
    kinds: tuple[Verdict, ...] = ("met", "not met", "known not met", "not measured")
    counts = {kind: sum(each.verdict == kind for each in bars) for kind in kinds}
    text = f"{len(bars)} bars: " + ", ".join(f"{number} {kind}" for kind, number in counts.items())
    failed = [each.bar.name for each in judged if each.counts]
    return text + (f"; failed: {', '.join(failed)}" if failed else "")
