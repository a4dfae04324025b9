"""Figures of sweeps: any small dataset along one to three axes, with a slider for all axes but one."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from exitwave.errors import InputError
from exitwave.papers.figures import COLOURS, LINE_WIDTH, Array, row

# Over which means are taken; what else a dataset varies is an axis.
REPEATED = "seed"
MOST_AXES = 3
# Positions of all sliders of a figure together: each stays in the page, some 10 kB.
MOST_STATES = 60
# Values whose largest is so many times the smallest are drawn on a logarithmic axis.
_LOGARITHMIC = 30.0
_SHORT = 16  # letters of a name in a legend

Elements = Mapping[tuple[Any, ...], Any]


def axes_of(result: xr.Dataset, quantity: str) -> list[str]:
    """Return the axes of a quantity, without the seeds."""
    return [str(name) for name in result[quantity].dims if name != REPEATED]


def drawable(result: xr.Dataset) -> list[str]:
    """Return the quantities that are drawn if nobody chooses: the first ones that belong together.

    They have one to three axes with values, are numbers of one unit, and share the last word of their names,
    as the correlations of several methods do; where no other shares it, the unit is enough.

    Returns
    -------
    list of str
        None if nothing can be drawn.
    """
    fit = [str(name) for name in result.data_vars if _fits(result, str(name))]
    if not fit:
        return []
    first = fit[0]
    alike = [
        n
        for n in fit
        if axes_of(result, n) == axes_of(result, first) and _unit(result, n) == _unit(result, first)
    ]
    related = [n for n in alike if n.rsplit("_", 1)[-1] == first.rsplit("_", 1)[-1]]
    return (related if len(related) > 1 else alike)[: len(COLOURS)]


def _fits(result: xr.Dataset, name: str) -> bool:
    axes = axes_of(result, name)
    return (
        1 <= len(axes) <= MOST_AXES
        and result[name].dtype.kind in "iuf"
        and all(_is_axis(result, axis) for axis in axes)
        and states(result, axes) <= MOST_STATES
    )


def _is_axis(result: xr.Dataset, axis: str) -> bool:
    """Tell whether an axis has several values, no two alike, for a slider to stop at."""
    if axis not in result.coords or result.sizes[axis] < 2:
        return False
    values = result[axis].values
    finite = values.dtype.kind not in "f" or bool(np.isfinite(values).all())
    return finite and len(set(values.tolist())) == len(values)


def _unit(result: xr.Dataset, name: str) -> str:
    return str(result[name].attrs.get("units", "1"))


def states(result: xr.Dataset, axes: Sequence[str], along: str | None = None) -> int:
    """Return how many positions the sliders of a figure have together."""
    moved = [axis for axis in axes if axis != (along or axes[0])]
    return int(np.prod([result.sizes[axis] for axis in moved], dtype=int))


def curves(
    result: xr.Dataset, quantities: Sequence[str] = (), *, along: str | None = None,
    titles: Mapping[str, str] | None = None, logy: bool | None = None,
) -> Any:  # fmt: skip
    """Draw quantities along one axis, with a slider for each of the others.

    Lines are means over seeds, bands reach from the lowest to the highest seed. All positions of the sliders
    have one scale.

    Parameters
    ----------
    result : xarray.Dataset
        As ``exitwave sweep`` stores it.
    quantities : sequence of str
        With the same axes; by default those of :func:`drawable`.
    along : str, optional
        The axis that is drawn; the first by default.
    titles : mapping of str to str
        Words for axes and quantities, and ``""`` for the vertical axis, in place of their names.
    logy : bool, optional
        Whether the vertical axis is logarithmic; by default where values differ by orders of magnitude.

    Returns
    -------
    panel layout
        Shown by a notebook at the end of a cell.

    Raises
    ------
    InputError
        If there is nothing to draw, an unknown name, or more positions than a page can hold.
    """
    titles = titles or {}
    chosen = list(quantities) or drawable(result)
    axes = _checked_axes(result, chosen, along)
    x = along or axes[0]
    rest = [axis for axis in axes if axis != x]
    means = {name: _over_seeds(result[name].transpose(..., *rest, x), "mean") for name in chosen}
    ends = [_over_seeds(result[n].transpose(..., *rest, x), how) for n in chosen for how in ("min", "max")]
    span = np.concatenate([end.ravel() for end in ends])
    logarithmic = _is_logarithmic(span) if logy is None else logy
    words = {name: titles.get(name, name.replace("_", " ")) for name in chosen}
    words, label = _labels(words, _unit(result, chosen[0]))
    label = titles.get("", label)
    style = {"logy": logarithmic, "ylim": _range(span, logarithmic), "xlabel": _title(result, x, titles)}
    drawn = {}
    for index in itertools.product(*(range(result.sizes[axis]) for axis in rest)):
        lines = [
            (words[name], means[name][index], ends[2 * i][index], ends[2 * i + 1][index])
            for i, name in enumerate(chosen)
        ]
        key = tuple(_plain(result[axis].values[i]) for axis, i in zip(rest, index, strict=True))
        drawn[key] = _overlay(result[x].values, lines, label, style)
    return sliders({axis: _title(result, axis, titles) for axis in rest}, drawn)


def sliders(axes: Mapping[str, str], *figures: Elements) -> Any:
    """Put figures above a slider for each axis; without an axis, side by side.

    Parameters
    ----------
    axes : mapping of str to str
        Title of the slider of each axis.
    *figures : mapping of tuple to HoloViews element
        Element at each place of the grid of all axes.

    Raises
    ------
    InputError
        If a figure has more positions than a page can hold.
    """
    import holoviews as hv
    import panel

    pn: Any = panel  # which has no type hints
    if not axes:
        return row(*(each[()] for each in figures))
    for figure in figures:
        if len(figure) > MOST_STATES:
            raise InputError(f"{len(figure)} positions make the page too heavy: at most {MOST_STATES}")
    names = list(axes.values())
    places = list(figures[0])
    widgets = {
        name: pn.widgets.DiscreteSlider(
            name=name, options=list(dict.fromkeys(place[i] for place in places)), width=LINE_WIDTH
        )
        for i, name in enumerate(names)
    }
    grow = {"flex": f"1 1 {LINE_WIDTH}px"}
    panes = []
    for figure in figures:
        keys = {place[0] if len(names) == 1 else place: element for place, element in figure.items()}
        panes.append(pn.pane.HoloViews(hv.HoloMap(keys, kdims=names), widgets=widgets, styles=grow))
    return pn.Column(pn.FlexBox(*panes), *widgets.values())


def _checked_axes(result: xr.Dataset, chosen: Sequence[str], along: str | None) -> list[str]:
    if not chosen:
        raise InputError("nothing to draw: no quantity of numbers has one to three axes with values")
    for name in chosen:
        if name not in result:
            raise InputError(f"no quantity {name!r}: there is {', '.join(map(str, result.data_vars))}")
        if axes_of(result, name) != axes_of(result, chosen[0]):
            raise InputError(f"{name} has other axes than {chosen[0]}: draw it by itself")
    axes = axes_of(result, chosen[0])
    if along is not None and along not in axes:
        raise InputError(f"{chosen[0]} has no axis {along!r}: it has {', '.join(axes)}")
    if states(result, axes, along) > MOST_STATES:
        raise InputError(f"{chosen[0]} has too many values for sliders: draw it along its longest axis")
    return axes


def _over_seeds(values: xr.DataArray, how: str) -> Array:
    found = getattr(values, how)(REPEATED) if REPEATED in values.dims else values
    return np.asarray(found.values, float)


def _overlay(
    x: Array, lines: Sequence[tuple[str, Array, Array, Array]], label: str, style: Mapping[str, Any]
) -> Any:
    """Draw lines with their points and bands: (name, mean, lowest, highest) of each."""
    import holoviews as hv

    numbers = x.dtype.kind in "iuf"
    at = x.astype(float) if numbers else np.arange(len(x), dtype=float)
    logx = numbers and _is_logarithmic(at)
    # The title would be what the sliders say.
    more: dict[str, Any] = {"logx": logx, "xlim": _range(at, logx), "title": ""}
    if len(at) <= 6 or not numbers:
        more["xticks"] = [
            (float(place), f"{value:g}" if numbers else str(value))
            for place, value in zip(at, x, strict=True)
        ]
    drawn = []
    for (name, mean, low, high), colour in zip(lines, itertools.cycle(COLOURS)):
        axes = ("x", label)
        if not np.array_equal(low, high, equal_nan=True):
            band = hv.Area((at, low, high), "x", [label, "highest"])
            drawn.append(band.opts(color=colour, alpha=0.15, line_alpha=0))
        drawn.append(hv.Curve((at, mean), *axes, label=name).opts(color=colour))
        drawn.append(hv.Scatter((at, mean), *axes, label=name).opts(color=colour))
    # On a telephone two long names do not stand beside each other.
    columns = 1 if max(len(name) for name, *_ in lines) > _SHORT else 2
    return hv.Overlay(drawn).opts(
        hv.opts.Overlay(legend_position="bottom", legend_cols=columns, **style, **more)
    )


def _labels(words: Mapping[str, str], unit: str) -> tuple[dict[str, str], str]:
    """Return names without the last words that all share, and these as the label of the axis."""
    parts = {name: text.split() for name, text in words.items()}
    ending: list[str] = []
    while len(parts) > 1 and all(len(part) > 1 for part in parts.values()):
        last = {part[-1] for part in parts.values()}
        if len(last) > 1:
            break
        ending.insert(0, last.pop())
        parts = {name: part[:-1] for name, part in parts.items()}
    label = " ".join(ending) if ending else next(iter(words.values())) if len(words) == 1 else "value"
    named = {name: " ".join(part) for name, part in parts.items()}
    return named, label if unit in ("", "1") else f"{label} ({unit})"


def _title(result: xr.Dataset, axis: str, titles: Mapping[str, str]) -> str:
    if axis in titles:
        return titles[axis]
    unit = str(result[axis].attrs.get("units", "1"))
    name = axis.replace("_", " ")
    return name if unit in ("", "1") else f"{name} ({unit})"


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _is_logarithmic(values: Array) -> bool:
    finite = values[np.isfinite(values)]
    return bool(finite.size and finite.min() > 0 and finite.max() >= _LOGARITHMIC * finite.min())


def _range(values: Array, logarithmic: bool) -> tuple[float, float]:
    """Return the ends of an axis that has room for all values."""
    finite = values[np.isfinite(values)]
    if logarithmic:
        finite = finite[finite > 0]
    if not finite.size:
        return (0.1, 1.0) if logarithmic else (0.0, 1.0)
    low, high = float(finite.min()), float(finite.max())
    if logarithmic:
        return low / 1.5, high * 1.5
    room = 0.08 * (high - low) or 0.08 * abs(high) or 1.0
    return low - room, high + room
