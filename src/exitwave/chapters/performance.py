"""The page on performance: tables and figures from what :mod:`exitwave.chapters.measuring` has stored."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from exitwave.chapters import bars, measuring
from exitwave.chapters.bars import Bar, Judged, Measured
from exitwave.papers import figures

Array = npt.NDArray[np.float64]

NOTHING = (
    "No numbers are stored yet. `make bars STORE=1` measures them on a machine that does nothing else, and "
    "the next build of the book shows them."
)
_SIGNS = {
    "met": "met", "not met": "**not met**", "known not met": "**not met**, as is known",
    "not measured": "not measured", "no bar": "",
}  # fmt: skip


@dataclass(frozen=True)
class Growth:
    """How the cost of a method grows.

    Attributes
    ----------
    title : str
    benchmark : str
        Of ``test_scaling.py``.
    size, work : str
        What grows, and what is timed.
    law : str
        What theory expects.
    theory : callable
        The same as a function of the size, to a factor.
    """

    title: str
    benchmark: str
    size: str
    work: str
    law: str
    theory: Callable[[Array], Array]


def _cubed(size: Array) -> Array:
    return size**3


def _fourier(size: Array) -> Array:
    return size * np.log(size)


def _linear(size: Array) -> Array:
    return size


GROWTHS = (
    Growth("Bloch waves", "test_bloch_waves", "beams", "a tilt", "n³", _cubed),
    Growth("multislice", "test_multislice", "pixels", "a wave", "N log N", _fourier),
    Growth("quasi-Newton", "test_quasi_newton", "pixels", "an evaluation", "N log N", _fourier),
    Growth("ptychography", "test_ptychography", "patterns", "an epoch", "n", _linear),
    Growth("U-Net", "test_network", "pixels", "a wave", "N", _linear),
)


# --- bars ---------------------------------------------------------------------------------------


def judged(measured: Measured) -> list[Judged]:
    """Return every figure of the project, judged."""
    return [bars.judge(bar, measured) for bar in bars.known_bars()]


def table(some: Sequence[Judged]) -> str:
    """Return judged figures as a Markdown table, with a list of what must be known beside it.

    Parameters
    ----------
    some : sequence of Judged
    """
    rows: list[tuple[str, ...]] = []
    notes: dict[str, list[str]] = {}  # the same reason has one number
    for each in some:
        mark = ""
        if each.note:
            notes.setdefault(each.note, []).append(f"`{each.bar.name}`")
            mark = f" ({list(notes).index(each.note) + 1})"
        rows.append((
            each.bar.says, amount(each.ours, "s" if each.bar.beside else each.bar.unit),
            ", ".join(f"{program} {amount(value, 's')}" for program, value in each.theirs.items()),
            _ratio(each.value) if each.bar.beside else "",
            ": ".join(filter(None, [_bar(each.bar), _SIGNS[each.verdict]])) + mark,
        ))  # fmt: skip
    heads = ("", "exitwave", "beside it", "ratio", "bar")
    kept = [i for i in range(len(heads)) if i < 2 or any(row[i] for row in rows)]
    lines = [[heads[i] for i in kept], ["---"] * len(kept), *([row[i] for i in kept] for row in rows)]
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    said = [f"{i}. {', '.join(n)}: {_plain(note)}." for i, (note, n) in enumerate(notes.items(), 1)]
    return text + ("\n\n" + "\n".join(said) if said else "")


def of_chapter(some: Sequence[Judged], *chapters: str) -> list[Judged]:
    """Return the figures of some chapters."""
    return [each for each in some if each.bar.chapter in chapters]


def amount(value: float, unit: str) -> str:
    """Return a number with its unit, as people write it: three digits, and ms or µs below a second."""
    if not math.isfinite(value):
        return "–"
    if unit != "s":
        return f"{value:.3g} {unit}"
    if value >= 99.95:
        return f"{value:.0f} s"
    factor, name = next((f, n) for f, n in ((1, "s"), (1e3, "ms"), (1e6, "µs")) if value * f >= 1 or f == 1e6)
    return f"{value * factor:.3g} {name}"


def _ratio(value: float) -> str:
    if not math.isfinite(value):
        return "–"
    return f"{value:.0f}" if value >= 99.95 else f"{value:.2g}" if value >= 9.95 else f"{value:.1f}"


def _bar(bar: Bar) -> str:
    if not bar.promised:
        return ""
    unit = "" if bar.beside else bar.unit
    text = f"≥ {bar.least:g}" if bar.least is not None else f"≤ {_limit(bar.most, unit)}"
    return text + (f" (aim {bar.aim:g})" if bar.aim is not None else "")


def _limit(value: float | None, unit: str) -> str:
    return "" if value is None else amount(value, unit)


def _plain(note: str) -> str:
    """Return a note that Markdown cannot take for anything else."""
    return note.replace("|", "/").replace("[", "(").replace("]", ")").replace("_", r"\_").rstrip(".")


def machine(measured: Measured) -> str:
    """Return on what, when and with what numbers were measured, in one paragraph of Markdown."""
    about = measured.about
    versions = ", ".join(
        f"{name} {text}" for name, text in about.get("versions", {}).items() if text[:1].isdigit()
    )
    load = about.get("load")
    cores = int(about.get("cores", 1))
    busy = load is not None and load > measuring.IDLE * cores
    return (
        f"Measured on {about.get('machine', 'an unknown machine')}, at most {about.get('threads', '?')} "
        "threads, "
        f"{str(about.get('made', '?'))[:10]}, commit {about.get('commit', '?')}; {versions}."
        + (
            f" **The machine had other work (load {load:.1f} at the start): times are longer than need be.**"
            if busy
            else ""
        )
    )


def download(measured: Measured) -> str:
    """Return a link, HTML, that holds the numbers themselves, so that it works from disk."""
    text = measuring.as_text(measured).encode()
    address = f"data:application/json;base64,{base64.b64encode(text).decode()}"
    return f'<a download="benchmarks.json" href="{address}">The numbers behind this page</a> (JSON).'


# --- growth -------------------------------------------------------------------------------------


def curve(measured: Measured, growth: Growth) -> tuple[Array, Array]:
    """Return sizes, in increasing order, and seconds, both shape (size,); empty if nothing was measured."""
    begin = f"{measuring.SCALING}::{growth.benchmark}["
    rows = sorted(
        (numbers["size"], numbers["seconds"])
        for name, numbers in measured.numbers.items()
        if name.startswith(begin) and numbers.get("seconds", 0) > 0 and numbers.get("size", 0) > 0
    )
    found = np.array(rows, float).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def exponent(sizes: Array, costs: Array) -> float:
    """Return the power of the size by which costs grow, fitted to the logarithms; nan of fewer than two."""
    if len(sizes) < 2:
        return math.nan
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def growth_table(measured: Measured) -> str:
    """Return as Markdown what grows, what it costs at both ends, and both exponents."""
    lines = [
        "| | what grows | from | to | theory | its exponent | fitted | upper half |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for growth in GROWTHS:
        sizes, costs = curve(measured, growth)
        if not len(sizes):
            lines.append(
                f"| {growth.title}, {growth.work} | {growth.size} | not measured | | {growth.law} | | | |"
            )
            continue
        ends = [f"{size:.0f}: {amount(cost, 's')}" for size, cost in zip(sizes, costs, strict=True)]
        half = len(sizes) // 2
        upper = exponent(sizes[half:], costs[half:])
        powers = (exponent(sizes, growth.theory(sizes)), exponent(sizes, costs), upper)
        cells = (
            f"{growth.title}, {growth.work}", growth.size, ends[0], ends[-1], growth.law,
            *(f"{power:.2f}" if math.isfinite(power) else "–" for power in powers),
        )  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def growth_figures(measured: Measured) -> Any:
    """Draw cost against size on axes of logarithms, beside the line that theory expects.

    Returns
    -------
    panel.FlexBox
        A figure for each method. Points are measured, the line is theory through the largest problem.
    """
    drawn = [growth_figure(measured, growth) for growth in GROWTHS if len(curve(measured, growth)[0])]
    return figures.row(*drawn, width=290, linked=False)


def growth_figure(measured: Measured, growth: Growth) -> Any:
    """Draw how the cost of one method grows, a holoviews.Overlay of theory and points."""
    import holoviews as hv

    sizes, costs = curve(measured, growth)
    theory = growth.theory(sizes)
    axes = {"kdims": [growth.size], "vdims": [f"{growth.work} (s)"]}
    ticks = [10.0**power for power in range(-5, 4)]
    counts = [10**power for power in range(1, 8)]
    return (
        hv.Curve((sizes, costs[-1] * theory / theory[-1]), **axes).opts(color=figures.COLOURS[0])
        * hv.Scatter((sizes, costs), **axes).opts(color=figures.COLOURS[1], size=9)
    ).opts(
        hv.opts.Curve(logx=True, logy=True, height=260, xticks=counts, yticks=ticks, line_width=1.5),
        hv.opts.Scatter(logx=True, logy=True, height=260, padding=0.1),
        hv.opts.Overlay(title=f"{growth.title}, {growth.law}: fitted {exponent(sizes, costs):.2f}"),
    )
