"""What the commands share: consoles, options, the reading of parameters, progress."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from exitwave.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from exitwave.chapters.points import Point

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

Settings = Annotated[
    list[str], typer.Option("-p", "--parameter", metavar="NAME=VALUE", help="A parameter; may be repeated.")
]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Local workers of one thread each; default: one a core.")
]
Scheduler = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="A running Dask scheduler to use instead.")
]


def checked_device(name: str) -> str:
    """Return a torch device's name if it can be used here; InputError if not."""
    if name != "cpu":
        import torch

        try:
            torch.empty(0, device=name)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            reason = str(error).splitlines()[0][:80]
            raise InputError(f"device {name!r} cannot be used here, use cpu: {reason}") from error
    return name


Device = Annotated[str, typer.Option(callback=checked_device, help="Torch device: cpu, cuda, cuda:1, ...")]


def settings_of(given: list[str]) -> dict[str, str]:
    """Split ``name=value`` pairs.

    Raises
    ------
    InputError
        If one has no ``=`` or a name comes twice.
    """
    settings: dict[str, str] = {}
    for text in given:
        name, sign, value = (part.strip() for part in text.partition("="))
        if not sign or not name:
            raise InputError(f"cannot read the parameter {text!r}: write -p name=value")
        if name in settings:
            raise InputError(
                f"parameter {name!r} is given twice: give it once, values separated by commas in a sweep"
            )
        settings[name] = value
    return settings


def as_json(value: Any) -> str:
    """Return strict JSON: what is not finite, which JSON cannot say, becomes null."""

    def plain(each: Any) -> Any:
        if isinstance(each, float) and not math.isfinite(each):
            return None
        if isinstance(each, dict):
            return {name: plain(item) for name, item in each.items()}
        return [plain(item) for item in each] if isinstance(each, list | tuple) else each

    return json.dumps(plain(value), indent=1)


@contextmanager
def reporter(total: int, what: str) -> Iterator[Callable[[Point, float], None]]:
    """Show points as they finish: a bar on a terminal, a line each elsewhere."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, disable=not err.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        done = 0

        def report(point: Point, seconds: float) -> None:
            nonlocal done
            done += 1
            bar.advance(task)
            if not err.is_terminal:
                state = f"{seconds:.1f} s" if seconds else "already done"
                err.print(f"{what}: {done}/{total} {point.study} {point.key} ({state})")

        yield report
