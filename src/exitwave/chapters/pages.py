"""The parts of the book that are made from data/ at each build."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from exitwave import records
from exitwave.chapters import ledger, scaling
from exitwave.chapters.project import chapters, parameters_of, trains
from exitwave.chapters.reproduce import run_file
from exitwave.chapters.run import run_path
from exitwave.errors import InputError
from exitwave.papers.parameters import SCALES
from exitwave.papers.verdicts import PAPERS, load_claims

# Smoke results only test the machinery; they are no answer to a claim.
LEDGER_SCALES = tuple(scale for scale in SCALES if scale != "smoke")


def generated_pages() -> Mapping[str, Callable[[], str | bytes]]:
    """Return what is made for the book: address in it, and the function that makes it."""
    pages: dict[str, Callable[[], str | bytes]] = {
        "book/ledger_counts.md": ledger_counts,
        "book/ledger_table.md": ledger_table,
        "book/gpu_runs_table.md": gpu_runs_table,
        "book/scaling_table.md": scaling.table,
    }
    for paper in chapters():
        pages[f"book/_static/cover_{paper}.png"] = _cover(paper)
        pages[f"data/live/{paper}.nc"] = _live(paper)
    return pages


def _live(paper: str) -> Callable[[], bytes]:
    def read() -> bytes:
        path = run_path(paper, parameters_of(paper).at("workshop"))
        if not path.is_file():
            raise InputError(
                f"{path} is gone, which the chapter offers for download: run `exitwave book --force`"
            )
        return path.read_bytes()

    return read


def _cover(paper: str) -> Callable[[], bytes]:
    def draw() -> bytes:
        figures: Any = import_module(f"exitwave.papers.{paper}.figures")
        return bytes(figures.cover(parameters_of(paper).at("workshop")))

    return draw


def ledger_counts() -> str:
    """Return how many claims have which verdict, at workshop scale and at any scale above smoke."""
    rows = ledger.ledger(scales=["workshop"])
    return ledger.counts_markdown(rows)


def ledger_table() -> str:
    """Return every claim with its verdicts: all rows at workshop scale, others where something was run."""
    rows = ledger.ledger(scales=LEDGER_SCALES)
    return ledger.markdown([row for row in rows if row.scale == "workshop" or row.verdict != "not run"])


def gpu_runs_table() -> str:
    """Return the runs that nobody has made at gpu scale yet, with what they cost here and their commands."""
    lines = [
        "| paper | run | study | repetitions | CPU minutes at workshop scale | command |",
        "|" + "---|" * 6,
    ]
    for paper in PAPERS:
        claims = load_claims(paper)
        for name, run in claims.runs.items():
            if run_file(paper, "gpu", name).is_file():
                continue
            command = f"`exitwave reproduce {paper} --scale gpu --device cuda --only {name}`"
            if trains(paper, run.study):
                command = f"`exitwave train {paper} --scale gpu --resume --run {name}`, then {command}"
            minutes = _workshop_minutes(paper, name)
            lines.append(f"| {paper} | {name} | {run.study} | {run.seeds} seeds | {minutes} | {command} |")
    return "\n".join(lines) + "\n"


def _workshop_minutes(paper: str, run: str) -> str:
    """Return how long a run took at workshop scale, as its file says; a dash where there is none."""
    path = run_file(paper, "workshop", run)
    if not path.is_file():
        return "-"
    return f"{records.provenance_of(records.load(path))['seconds'] / 60:.1f}"
