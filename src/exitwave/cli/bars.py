"""``exitwave bars``: measure what the chapters promise of time, memory and size."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from exitwave.cli.options import err
from exitwave.errors import InputError


def bars(
    name: Annotated[list[str] | None, typer.Argument(help="Figures to measure; default: all.")] = None,
    store: Annotated[
        bool, typer.Option("--store", help="Keep the numbers in data/performance, for the book.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Also clone the last commit and run `make book` in it.")
    ] = False,
    peers: Annotated[
        str | None,
        typer.Option(metavar="PYTHON", help="Of an environment with quantem, ptyrad and this package."),
    ] = None,
    source: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="Judge numbers of a run before.")
    ] = None,
    stored: Annotated[bool, typer.Option("--stored", help="Judge the numbers of the book.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Bars known not to be met, and what is lacking, count too.")
    ] = False,
    busy: Annotated[bool, typer.Option("--busy", help="Store even from a machine with other work.")] = False,
) -> None:
    """Measure every figure that the chapters promise, one line of JSON each; status 1 if a bar is not met.

    The lines go to runs/bars/bars.jsonl and to the screen, the numbers to runs/bars/benchmarks.json.
    A bar that the list says is not met, with its reason, is shown as "known not met"; one whose program, GPU
    or fresh clone is not there as "not measured". Neither passes, and with --strict both make the status 1.
    A benchmark that fails, is missing or gives no number always does.
    """
    from exitwave.chapters import bars as judging
    from exitwave.chapters import measuring
    from exitwave.project import project_root, runs_folder

    chosen = judging.selected(name or [])
    apart = bool(name) and all(row.benchmark.startswith("book::") for bar in chosen for row in bar.rows)
    if store and name and not apart:
        raise InputError(
            "numbers that are kept belong to one run, but for the book's own: leave out the names, or --store"
        )
    if (source is not None or stored) and (store or fresh or peers):
        raise InputError(
            "--from and --stored measure nothing: leave them out, or --store, --fresh and --peers"
        )
    folder = runs_folder() / "bars"
    if stored or source is not None:
        measured = measuring.read(measuring.stored_file() if source is None else source)
    else:
        if store and not busy:
            measuring.check_idle()
        wanted = measuring.benchmarks_of(chosen, scaling=not name)
        measured = measuring.measure(project_root(), wanted, fresh=fresh, peers=peers, echo=err.print)
        measuring.write(measured, folder / "benchmarks.json")
        if store:
            kept = measuring.beside_stored(measured) if apart else measured
            err.print(str(measuring.write(kept, measuring.stored_file())))
    judged = [judging.judge(bar, measured, strict=strict) for bar in chosen]
    lines = judging.report(judged, measured.about)
    measuring.write_lines(lines, folder / "bars.jsonl")
    print(lines, end="", flush=True)
    err.print(judging.summary(judged), markup=False)
    if any(each.counts for each in judged):
        raise typer.Exit(1)
