"""``exitwave train``: its options, how it shows where a training is, and what came of it."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from exitwave.cli.options import Settings, checked_device, err, out, reporter, settings_of
from exitwave.errors import InputError, RunError

if TYPE_CHECKING:
    from exitwave.chapters.points import Point
    from exitwave.chapters.torchrun import Place
    from exitwave.chapters.train import Job, Outcome
    from exitwave.networks.training import Progress

# Off a terminal no more than one line in so many seconds, each after an epoch.
_SECONDS_BETWEEN_LINES = 10.0


def _device(name: str) -> str:
    """Return the device; ``auto`` is a GPU if torch sees one."""
    if name == "auto":
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"
    return checked_device(name)


def train(
    context: typer.Context,
    paper: Annotated[str, typer.Argument(help="A paper, for example webb2025.")],
    scale: Annotated[str, typer.Option(help="smoke, workshop, gpu or paper.")] = "workshop",
    budget_minutes: Annotated[
        float | None, typer.Option(metavar="M", help="For all networks together; default: no limit.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the checkpoints that there are.")] = False,
    run: Annotated[
        list[str] | None, typer.Option(metavar="RUN", help="A run of the claims; may be repeated.")
    ] = None,
    seed: Annotated[
        list[int] | None, typer.Option(metavar="SEED", help="A seed of theirs; may be repeated.")
    ] = None,
    parameter: Settings = [],  # noqa: B006
    device: Annotated[
        str, typer.Option(callback=_device, help="cpu, cuda, cuda:1; auto: a GPU if there is one.")
    ] = "auto",
    devices: Annotated[int, typer.Option(min=1, help="Devices for each network, of this machine.")] = 1,
) -> None:
    """Train the networks behind a paper's claims: webb2025 --scale gpu --budget-minutes 25 --resume.

    Any other option is a parameter that chooses among them: ede2020 --scope restricted --n-terms 3.
    What they learn from is made first if it is not stored. What is killed, or stopped by its budget, goes on
    at the next call with --resume. Checkpoints and weights are in runs/PAPER/training/; `exitwave reproduce`
    at the same scale then only collects the results. In the processes of torchrun it
    trains one network, without --devices.
    """
    from exitwave.chapters import torchrun
    from exitwave.chapters import train as training

    wanted = _changes(paper, _further(context.args))
    choice: dict[str, Any] = {
        "runs": training.runs_with(paper, scale, wanted, run or ()) if wanted else run or (),
        "seeds": seed or (),
        "changes": _changes(paper, settings_of(parameter)),
    }
    place = torchrun.place()
    if place is not None:
        how = {"budget_minutes": budget_minutes, "resume": resume, "device": device}
        _train_with_others(paper, training.jobs_of(paper, scale, **choice), place, how)
        return
    _make_specimens(paper, scale, [point for _, point in training.points_of(paper, scale, **choice)], device)
    jobs = training.jobs_of(paper, scale, **choice)
    with _shown(jobs) as report:
        outcomes = training.train(
            jobs, budget_minutes=budget_minutes, resume=resume, device=device, devices=devices, report=report
        )
    for outcome in outcomes:
        out.print(_line(paper, outcome), markup=False)
    failed = [outcome for outcome in outcomes if outcome.failure]
    if failed:
        raise RunError(f"{len(failed)} of {len(outcomes)} trainings failed: {failed[0].failure}")


def _train_with_others(paper: str, jobs: list[Job], place: Place, how: dict[str, Any]) -> None:
    """Train one network in the processes of ``torchrun``, of which the first alone speaks."""
    from exitwave.chapters import torchrun

    if place.rank:
        torchrun.train(jobs, place, **how)
        return
    with _shown(jobs) as report:
        outcome = torchrun.train(jobs, place, report=report, **how)
    out.print(_line(paper, outcome), markup=False)


def _further(arguments: list[str]) -> dict[str, str]:
    """Return parameters by name from ``--name value`` or ``--name=value``."""
    found: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        option, sign, value = rest.pop(0).partition("=")
        if not option.startswith("--") or not (sign or rest):
            raise InputError(f"cannot read {option!r}: choose trainings by --parameter-name value")
        found[option[2:].replace("-", "_")] = value if sign else rest.pop(0)
    return found


def _make_specimens(paper: str, scale: Any, points: Sequence[Point], device: str) -> None:
    """Make what the networks learn from, where there is none at this scale."""
    from exitwave.chapters import reproduce

    for point in points:
        while name := reproduce.missing_specimen(paper, point.parameters):
            run = reproduce.selected_specimens(paper, [name])[name]
            with reporter(run.seeds, f"specimen {name} of {paper}") as report:
                reproduce.reproduce_specimens(
                    paper, scale, only=[name], report=report, device=device, in_process=True
                )


def _changes(paper: str, given: dict[str, str]) -> dict[str, Any]:
    """Return changed parameters in the types that the chapter declares."""
    from exitwave.chapters.run import parse_axes

    values = parse_axes(paper, {name: [value] for name, value in given.items()}) if given else {}
    return {name: value for name, [value] in values.items()}


def _line(paper: str, outcome: Outcome) -> str:
    """Return one line: how far the training came, what the claims read of it, where it is."""
    job, result = outcome.job, outcome.result
    if outcome.failure is not None:
        parts = [f"failed, {outcome.failure}"]
    elif result is None:
        parts = ["begun, not judged yet" if job.checkpoint.exists() else "not begun"]
    else:
        parts = [f"{_percent(outcome.fraction)} trained"]
        parts += [
            f"{name} {float(result[name]):.4g}" for name in _read_by_claims(paper, job.run) if name in result
        ]
    return f"{job.name}: {', '.join(parts)}; {job.folder}"


def _read_by_claims(paper: str, run: str) -> dict[str, None]:
    """Return the words by which claims are judged that are read from a run, in the order of the claims."""
    from exitwave.papers.verdicts import load_claims

    words = (
        claim.source_of(word)
        for claim in load_claims(paper).claims
        for text in (*claim.quantities, *claim.inequalities)
        for word in re.findall(r"\w+", text)
    )
    return dict.fromkeys(word for source, word in words if source == run)


def _percent(fraction: float) -> str:
    """Return a share in percent, never 100% of what is not whole."""
    return f"{math.floor(1000 * fraction) / 10:g}%"


@contextmanager
def _shown(jobs: list[Job]) -> Iterator[Callable[[Job, Progress], None]]:
    """Show where a training is: a bar on a terminal, a line now and then elsewhere."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    number = {job.point.key: f"{i}/{len(jobs)} {job.name}" for i, job in enumerate(jobs, 1)}
    with Bars(*columns, TextColumn("{task.fields[said]}"), console=err, disable=not err.is_terminal) as bars:
        tasks: dict[str, Any] = {}
        epochs: dict[str, int] = {}
        last = -math.inf

        def report(job: Job, progress: Progress) -> None:
            nonlocal last
            key, epoch = job.point.key, len(progress.curves.epoch)
            losses = [f"{name} {values[-1]:.3g}" for name, values in progress.curves.losses.items()]
            said = ", ".join([f"epoch {progress.epoch}", *losses])
            if key not in tasks:
                # From where it goes on, so that the time left is that of the steps seen.
                tasks[key] = bars.add_task(
                    number[key], total=progress.steps, completed=progress.step - 1, said=said
                )
            bars.update(tasks[key], completed=progress.step, said=said)
            if err.is_terminal or epoch == epochs.setdefault(key, epoch):
                return
            if time.monotonic() - last >= _SECONDS_BETWEEN_LINES or progress.step == progress.steps:
                left = _minutes_left(progress)
                err.print(f"{number[key]}: {said}, step {progress.step} of {progress.steps}, {left} min left")
                epochs[key], last = epoch, time.monotonic()

        yield report


def _minutes_left(progress: Progress) -> str:
    return f"{progress.seconds / progress.step * (progress.steps - progress.step) / 60:.1f}"
