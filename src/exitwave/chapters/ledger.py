"""The claims ledger: every claim at every scale with its verdict, computed from data/."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

import xarray as xr

from exitwave import records
from exitwave.chapters.reproduce import is_stale, run_file
from exitwave.errors import InputError
from exitwave.papers.parameters import SCALES, Scale
from exitwave.papers.verdicts import (
    CHAPTERS,
    PAPERS,
    Claim,
    PaperClaims,
    Verdict,
    count_samples,
    judge,
    load_claims,
    margin,
    means,
)
from exitwave.project import data_folder

VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


@dataclass(frozen=True)
class Row:
    """One claim at one scale."""

    claim: Claim
    paper: str
    scale: Scale
    verdict: Verdict
    samples: int = 0
    seeds: int = 0
    source: str | None = None
    measured: dict[str, float] = field(default_factory=dict)
    beside: dict[str, float] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    margins: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    sensitivity: dict[str, Verdict] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the row as ``exitwave claims --format json`` prints it."""
        return {
            "id": self.claim.id,
            "paper": self.paper,
            "scale": self.scale,
            "claimed": self.claim.value if self.claim.value is not None else self.claim.inequalities or None,
            "measured": list(self.measured.values()) or None,
            "unit": ", ".join(dict.fromkeys(self.units[name] for name in self.measured)) or self.claim.unit,
            "verdict": self.verdict,
            "samples": self.samples,
            "seeds": self.seeds,
            "source": self.source,
        }


def ledger(papers: Iterable[str] = PAPERS, scales: Iterable[Scale] = SCALES) -> list[Row]:
    """Return one row for each claim and scale, in the order of the claims.

    Raises
    ------
    InputError
        For an unknown paper, or a chapter that follows none and has no claims.
    """
    papers, scales = tuple(papers), tuple(scales)
    for paper in papers:
        if paper in CHAPTERS and paper not in PAPERS:
            raise InputError(f"{paper} follows no paper and has no claims: use one of {', '.join(PAPERS)}")
    return [
        _row(paper, claims, claim, scale)
        for paper in papers
        for claims in [load_claims(paper)]
        for claim in claims.claims
        for scale in scales
    ]


def _row(paper: str, claims: PaperClaims, claim: Claim, scale: Scale) -> Row:
    if scale in claim.waiver:
        return Row(claim, paper, scale, "waived")
    if claim.run is None or not all(run_file(paper, scale, run).is_file() for run in claim.runs):
        return Row(claim, paper, scale, "not run")
    stored = _joined(paper, scale, claim)
    path = run_file(paper, scale, claim.run)
    found: dict[str, Any] = {
        "samples": count_samples(stored),
        "seeds": stored.sizes["seed"],
        "source": f"data/{path.relative_to(data_folder()).as_posix()}",
    }
    if any(is_stale(_load(paper, scale, run), paper, claims.runs[run], scale) for run in claim.runs):
        return Row(claim, paper, scale, "stale", **found)
    return Row(
        claim,
        paper,
        scale,
        judge(claim, stored),
        measured=dict(means(claim.quantities, stored)),
        beside=dict(means(claim.beside, stored)),
        units={str(name): variable.attrs.get("units", "1") for name, variable in stored.data_vars.items()},
        margins={text: margin(text, stored) for text in claim.inequalities},
        sensitivity=_sensitivity(paper, claims, claim, scale),
        **found,
    )


def _joined(
    paper: str, scale: Scale, claim: Claim, instead: Mapping[str, str] = MappingProxyType({})
) -> xr.Dataset:
    """Return what a claim reads: its run, and the numbers of further runs by their own names.

    Runs of the claim may have others that stand for them, `instead`.
    """
    stored = _load(paper, scale, instead.get(str(claim.run), str(claim.run)))
    for name, run in claim.also.items():
        other = _load(paper, scale, instead.get(run, run))
        numbers = {
            each: f"{name}_{each}" for each, values in other.data_vars.items() if values.dims == ("seed",)
        }
        stored = stored.merge(other[list(numbers)].rename(numbers), join="inner")
    return stored


def _load(paper: str, scale: Scale, run: str) -> xr.Dataset:
    path = run_file(paper, scale, run)
    return _read(path, path.stat().st_mtime_ns)


@cache
def _read(path: Path, _modified: int) -> xr.Dataset:
    return records.load(path)


def _sensitivity(paper: str, claims: PaperClaims, claim: Claim, scale: Scale) -> dict[str, Verdict]:
    """Return the verdict under each changed setting that the claim names, by the runs that differ then."""
    found: dict[str, Verdict] = {}
    for trial in claim.trials:
        runs = dict.fromkeys(trial.values())
        if all(run_file(paper, scale, run).is_file() for run in runs):
            stale = any(is_stale(_load(paper, scale, run), paper, claims.runs[run], scale) for run in runs)
            verdict = "stale" if stale else judge(claim, _joined(paper, scale, claim, trial))
            found[", ".join(runs)] = verdict
    return found


def counts(rows: Sequence[Row]) -> dict[Verdict, int]:
    """Return how many rows have each verdict."""
    counted = Counter(row.verdict for row in rows)
    return {verdict: counted[verdict] for verdict in VERDICTS}


def _numbers(values: dict[str, float], units: dict[str, str]) -> str:
    """Return names with values and units, as in ``tie resolution 15 Å``."""
    return "; ".join(
        f"{name.replace('_', ' ')} {value:.4g} {units.get(name, '1')}".removesuffix(" 1")
        for name, value in values.items()
    )


def measured_text(row: Row) -> str:
    """Return what was measured, in words: margins with their intervals, values, what stands beside."""
    if row.verdict == "waived":
        return row.claim.waiver[row.scale]
    parts = []
    if row.measured:
        parts.append(_numbers(row.measured, row.units))
    for text, (mean, low, high) in row.margins.items():
        parts.append(f"{text.replace('_', ' ')}: by {mean:.3g} [{low:.3g}, {high:.3g}]")
    if row.beside:
        parts.append(f"beside it: {_numbers(row.beside, row.units)}")
    parts += [f"as `{names.replace(', ', '`, `')}`: {verdict}" for names, verdict in row.sensitivity.items()]
    if row.claim.untested and row.verdict in ("partly", "not reproduced"):
        parts.append(f"reason not tested: {row.claim.untested}")
    return "; ".join(parts)


def counts_markdown(rows: Sequence[Row]) -> str:
    """Return a Markdown table of how many rows have each verdict."""
    lines = ["| verdict | rows |", "|---|---|"]
    lines += [f"| {verdict} | {number} |" for verdict, number in counts(rows).items()]
    return "\n".join([*lines, f"| all | {len(rows)} |"]) + "\n"


def markdown(rows: Sequence[Row]) -> str:
    """Return the ledger as Markdown tables, one for each paper under its heading where there are several."""
    papers = list(dict.fromkeys(row.paper for row in rows))
    lines = []
    for paper in papers:
        lines += ["", f"## {paper}", ""] if len(papers) > 1 else []
        lines += ["| claim | verdict | measured |", "|---|---|---|"]
        for row in rows:
            if row.paper == paper:
                cells = [_claim_text(row.claim), f"**{row.verdict}** ({row.scale})", _measured_cell(row)]
                lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _claim_text(claim: Claim) -> str:
    """Return the claim in one line: its name, where it stands, what it says."""
    text = f"`{claim.id}` {claim.where}: {claim.statement}"
    return text + (f" (**{', '.join(f'{value:g}' for value in claim.values)}**)" if claim.values else "")


def _measured_cell(row: Row) -> str:
    """Return what was measured with the size of its sample, and the claim's note."""
    text = measured_text(row)
    if row.samples:
        text += f" ({row.samples} samples, {row.seeds} seeds)"
    return text + (f"; {row.claim.note}" if row.claim.note and row.measured else "")


def _cell(text: str) -> str:
    """Return a text as it may stand in a Markdown table."""
    return text.replace("|", "\\|").replace("~", "\\~").replace("<", "&lt;").replace("$", "\\$") or " "
