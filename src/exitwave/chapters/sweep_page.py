"""What the page of parameter studies says of sweeps: a table of all, and which are drawn."""

from __future__ import annotations

from collections.abc import Sequence

from exitwave.chapters.stored_sweeps import Found
from exitwave.papers import sweep_figures

# Newest first; more would make the page too heavy.
MOST_DRAWN = 8
_LISTED = 6


def drawn(sweeps: Sequence[Found]) -> list[Found]:
    """Return those sweeps that are drawn: the newest few with a quantity along one to three axes."""
    able = [each for each in sweeps if each.result is not None and sweep_figures.drawable(each.result)]
    return able[:MOST_DRAWN]


def table(sweeps: Sequence[Found]) -> str:
    """Return a Markdown table of sweeps: file, axes, date, quantities, and why one is not drawn."""
    if not sweeps:
        return "There is none here yet."
    shown = {each.name for each in drawn(sweeps)}
    lines = ["| sweep | axes | made | quantities | |", "|" + "---|" * 5]
    for each in sweeps:
        cells = [f"`{_safe(each.name)}`", _axes(each), _safe(str(each.made.get("made", "?")))[:10]]
        cells += [_quantities(each), "" if each.name in shown else _reason(each)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def heading(sweep: Found) -> str:
    """Return one line that names a sweep that is drawn."""
    study = sweep.made.get("study", "a study")
    return f"**{_safe(str(sweep.made.get('paper', '?')))}, {_safe(str(study))}** (`{_safe(sweep.name)}`)"


def _reason(sweep: Found) -> str:
    if sweep.fault:
        return f"**{sweep.fault}**"
    if sweep.result is not None and sweep_figures.drawable(sweep.result):
        return f"not drawn: the newest {MOST_DRAWN} are"
    return "not drawn: no numbers along one to three axes"


def _axes(sweep: Found) -> str:
    return " × ".join(f"{_safe(name)} {size}" for name, size in sweep.axes.items()) or "none"


def _quantities(sweep: Found) -> str:
    names = [] if sweep.result is None else [f"`{_safe(str(name))}`" for name in sweep.result.data_vars]
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more or "none"


def _safe(text: str) -> str:
    """Return a text without what would end a cell of a table or a piece of code."""
    return " ".join(text.translate(str.maketrans("|`<>$*", "      ")).split())
