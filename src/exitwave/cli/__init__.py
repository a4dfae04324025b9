"""The command line: ``exitwave run|sweep|reproduce|train|simulate|retrieve|export|claims|book|runs``."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from exitwave import __version__
from exitwave.cli.bars import bars
from exitwave.cli.dpc import retrieve_dpc
from exitwave.cli.exporting import export
from exitwave.cli.holograms import retrieve_holography
from exitwave.cli.methods import retrieve_app, simulate_app
from exitwave.cli.one_shot import retrieve_one_shot
from exitwave.cli.options import (
    Device,
    Scheduler,
    Settings,
    Workers,
    as_json,
    err,
    out,
    reporter,
    settings_of,
)
from exitwave.cli.parallax import retrieve_parallax
from exitwave.cli.ptychography import retrieve_ptychography
from exitwave.cli.scaling import scaling
from exitwave.cli.scan_network import retrieve_network
from exitwave.cli.scan_simulation import simulate_scan
from exitwave.cli.side_band import retrieve_ssb
from exitwave.cli.training import train
from exitwave.cli.waves import retrieve_focal_series
from exitwave.cli.workshop import workshop
from exitwave.errors import InputError, RunError

# Everything heavy is imported by the command that needs it: `exitwave --help` answers at once.
app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Five papers on lost electron phase: run their chapters, check their claims, use their methods.",
)
runs_app = typer.Typer(no_args_is_help=True, help="List, show and compare stored runs.")
app.add_typer(runs_app, name="runs")
app.add_typer(simulate_app, name="simulate")
app.add_typer(retrieve_app, name="retrieve")
simulate_app.command("scan")(simulate_scan)
retrieve_app.command("focal-series")(retrieve_focal_series)
retrieve_app.command("one-shot")(retrieve_one_shot)
retrieve_app.command("holography")(retrieve_holography)
retrieve_app.command("dpc")(retrieve_dpc)
retrieve_app.command("parallax")(retrieve_parallax)
retrieve_app.command("ssb")(retrieve_ssb)
retrieve_app.command("network")(retrieve_network)
retrieve_app.command("ptychography")(retrieve_ptychography)

app.command()(export)
app.command()(scaling)
app.command()(workshop)


def _version(show: bool) -> None:
    if show:
        out.print(f"exitwave {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")
    ] = False,
) -> None:
    pass


@app.command()
def run(
    chapter: Annotated[str, typer.Argument(help="A chapter, for example zhou2020.")],
    parameter: Settings = [],  # noqa: B006  (typer reads the default, nothing changes it)
) -> None:
    """Run a chapter's notebook with other parameters; writes runs/CHAPTER/<hash>.ipynb and .nc."""
    from exitwave.chapters.run import run_chapter

    notebook, result = run_chapter(chapter, settings_of(parameter))
    out.print(f"{notebook}\n{result}")


@app.command()
def sweep(
    chapter: Annotated[str, typer.Argument(help="A chapter, for example zhou2020.")],
    study: Annotated[str | None, typer.Argument(help="Its study, for example comparison.")] = None,
    parameter: Settings = [],  # noqa: B006
    workers: Workers = None,
    scheduler: Scheduler = None,
    device: Device = "cpu",
    notebooks: Annotated[bool, typer.Option(help="Execute the notebook for each point instead.")] = False,
) -> None:
    """Call a study for every point of a grid: -p noise=0,0.1,0.2 -p images=2,4. A killed sweep resumes."""
    from exitwave.chapters.run import parse_axes, sweep_notebooks
    from exitwave.chapters.sweep import grid, run_sweep

    axes = parse_axes(chapter, {name: value.split(",") for name, value in settings_of(parameter).items()})
    if notebooks:
        out.print("\n".join(str(path) for path in sweep_notebooks(chapter, axes)))
        return
    if study is None:
        raise InputError(
            "name a study, for example `exitwave sweep zhou2020 comparison`, or pass --notebooks"
        )
    with reporter(len(grid(chapter, axes)), f"sweep {chapter}") as report:
        path, result = run_sweep(
            chapter, study, axes, report=report, workers=workers, scheduler=scheduler, device=device
        )
    out.print(f"{path}: {', '.join(str(name) for name in result.data_vars)} along {dict(result.sizes)}")


@app.command()
def reproduce(
    paper: Annotated[str | None, typer.Argument(help="A paper, for example zhou2020.")] = None,
    scale: Annotated[str, typer.Option(help="smoke, workshop, gpu or paper.")] = "workshop",
    only: Annotated[str | None, typer.Option(metavar="NAME", help="One claim, run, sweep, specimen.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Dask workers; default: none, all threads on one point.")
    ] = None,
    scheduler: Scheduler = None,
    device: Device = "cpu",
    check: Annotated[
        int, typer.Option(metavar="N", help="Recompute N stored rows and compare; writes nothing.")
    ] = 0,
    seed: Annotated[int, typer.Option(help="Chooses the rows of --check.")] = 0,
    budget_minutes: Annotated[
        float, typer.Option(metavar="M", help="For --check: passes over rows that take longer.")
    ] = math.inf,
    specimens: Annotated[
        bool, typer.Option("--specimens", help="Make the paper's stored specimens again instead.")
    ] = False,
) -> None:
    """Run the studies behind a paper's claims and store the results in data/ (its only writer).

    Of runs that release trained networks, the weights are stored in data/PAPER/weights/ too.
    """
    from exitwave.chapters import reproduce as reproduction
    from exitwave.chapters.stored_sweeps import sweep_points
    from exitwave.papers.parameters import SCALES

    if scale not in SCALES:
        raise InputError(f"unknown scale {scale!r}: use one of {', '.join(SCALES)}")
    if check:
        _check_rows(check, seed, scale, device, budget_minutes)
        return
    if paper is None:
        raise InputError("name a paper, for example `exitwave reproduce zhou2020`")
    how: dict[str, Any] = {
        "device": device, "workers": workers, "scheduler": scheduler,
        "in_process": workers is None and scheduler is None,
    }  # fmt: skip
    if specimens:
        named = () if only is None else (only,)
        total = sum(run.seeds for run in reproduction.selected_specimens(paper, named).values())
        with reporter(total, f"specimens of {paper}") as report:
            paths = reproduction.reproduce_specimens(paper, scale, only=named, report=report, **how)
    else:
        total = sum(run.seeds for run in reproduction.selected_runs(paper, only).values())
        total += sum(len(each) for each in sweep_points(paper, scale, only))
        with reporter(total, f"reproduce {paper}") as report:
            paths = reproduction.reproduce(paper, scale, only=only, report=report, **how)
    out.print("\n".join(str(path) for path in paths))


app.command()(bars)
# What is no option of its own is a parameter of the paper.
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(train)


def _check_rows(rows: int, seed: int, scale: Any, device: str, minutes: float) -> None:
    from exitwave.chapters.reproduce import recompute

    found = recompute(rows, seed, scale, device=device, minutes=minutes)
    for one in found:
        sign = "agrees" if one.agrees else "DIFFERS"
        out.print(
            f"{one.claim} {one.quantity} seed {one.seed}: "
            f"stored {one.stored:.5g}, again {one.again:.5g}: {sign}"
        )
    if not all(one.agrees for one in found):
        raise InputError(
            "stored rows do not come out again: run `exitwave reproduce` and look at what changed"
        )


@app.command()
def claims(
    paper: Annotated[str | None, typer.Option(help="One paper only.")] = None,
    scale: Annotated[str | None, typer.Option(help="One scale only.")] = None,
    form: Annotated[str, typer.Option("--format", help="table, markdown or json.")] = "table",
) -> None:
    """Print the claims ledger: every claim at every scale with its verdict, computed from data/."""
    from exitwave.chapters import ledger
    from exitwave.papers.parameters import SCALES
    from exitwave.papers.verdicts import PAPERS

    if scale is not None and scale not in SCALES:
        raise InputError(f"unknown scale {scale!r}: use one of {', '.join(SCALES)}")
    rows = ledger.ledger([paper] if paper else PAPERS, [s for s in SCALES if scale in (None, s)])
    if form == "json":
        print(as_json([row.as_json() for row in rows]))
    elif form == "markdown":
        print(ledger.markdown(rows))
    elif form == "table":
        table = Table("claim", "scale", "verdict", "measured", title="Claims ledger")
        for row in rows:
            table.add_row(row.claim.id, row.scale, row.verdict, ledger.measured_text(row))
        out.print(table)
        out.print(", ".join(f"{number} {verdict}" for verdict, number in ledger.counts(rows).items()))
    else:
        raise InputError(f"unknown format {form!r}: use table, markdown or json")


@app.command()
def book(
    force: Annotated[bool, typer.Option(help="Run every notebook and build every page again.")] = False,
    publish: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Copy the built book there for a web server.")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Chapters that run at once; default: one on each core, four at most."),
    ] = None,
) -> None:
    """Run the chapters and render the book to _build/html/index.html."""
    from exitwave.chapters import book as builder
    from exitwave.chapters.execute_many import default_jobs
    from exitwave.chapters.pages import generated_pages
    from exitwave.project import project_root

    root = project_root()
    index = builder.build(
        root, generated=generated_pages(), force=force, jobs=jobs or default_jobs(), echo=err.print
    )
    if publish is not None:
        index = builder.publish(root, publish)
    out.print(str(index))


@runs_app.command("list")
def list_runs() -> None:
    """List stored runs, oldest first."""
    from exitwave import records
    from exitwave.chapters.run import stored_runs
    from exitwave.project import runs_folder

    table = Table("run", "made", "scale", "seconds", "file")
    for path in stored_runs():
        made = records.provenance_of(records.load(path))
        seconds = made.get("seconds")
        table.add_row(
            path.stem, made.get("made", "?"), str(made.get("scale", "?")),
            "?" if seconds is None else f"{seconds:.1f}", path.relative_to(runs_folder()).as_posix(),
        )  # fmt: skip
    out.print(table)


@runs_app.command("show")
def show_run(run: Annotated[str, typer.Argument(help="Its hash, the beginning of it, or a file.")]) -> None:
    """Show what made a run, and its quantities."""
    from exitwave import records
    from exitwave.chapters.run import find_run, scalars

    path = find_run(run)
    record = records.load(path)
    made, quantities = records.provenance_of(record), scalars(record)
    print(as_json({"file": str(path), "made": made, "quantities": quantities}))


@runs_app.command("compare")
def compare_runs(first: str, second: str) -> None:
    """Show the parameters in which two runs differ, and their quantities side by side."""
    from exitwave.chapters.run import compare, find_run

    differing, common = compare(find_run(first), find_run(second))
    table = Table("", first, second)
    for name, (one, two) in differing.items():
        table.add_row(name, str(one), str(two))
    table.add_section()
    for name, (x, y) in common.items():
        table.add_row(name, f"{x:.5g}", f"{y:.5g}")
    out.print(table)


def main() -> None:
    """Run the command line; what the user can mend is one line on standard error and a status."""
    try:
        app()
    except InputError as error:
        sys.exit(_say(error, 2))
    except (RunError, OSError) as error:
        sys.exit(_say(error, 1))


def _say(error: Exception, status: int) -> int:
    err.print(f"exitwave: {error}", markup=False)
    return status
