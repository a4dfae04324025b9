"""Figures of sweeps: the right number at the right place of the sliders, whatever the axes."""

import holoviews as hv
import numpy as np
import panel as pn
import pytest
import xarray as xr

from exitwave import records
from exitwave.chapters.stored_sweeps import Found
from exitwave.chapters.sweep_page import MOST_DRAWN, drawn, heading, table
from exitwave.errors import InputError
from exitwave.papers import figures, sweep_figures

# `label`, which it is to be from version 2 of panel on, is not known to the oldest that is supported.
pytestmark = pytest.mark.filterwarnings("ignore:Widget.name is deprecated:PendingDeprecationWarning")

NOISE, IMAGES, FOCUS = [0.0, 0.1, 0.2], [2, 4], ["moderate", "strong"]


@pytest.fixture(autouse=True, scope="module")
def style():
    figures.setup()


def quantity(dims, values, units="1"):
    return (dims, np.asarray(values), {"units": units, "long_name": "some quantity"})


def dataset():
    """Values that tell where they belong: 1 + noise + images / 100 + strong / 1000, plus or minus by seed."""
    n, i, f = np.meshgrid(NOISE, IMAGES, [0, 1], indexing="ij")
    place = 1 + n + i / 100 + f / 1000
    cube = np.stack([place - 0.5, place + 0.5])
    axes = ("seed", "noise", "images", "focus")
    return xr.Dataset(
        {
            "tie_correlation": quantity(axes, cube),
            "fit_correlation": quantity(axes, -cube),
            "tie_seconds": quantity(axes, cube, "s"),
            "alone": quantity("noise", NOISE),
            "scalar": quantity((), 1.0),
            "course": quantity(("seed", "noise", "images", "focus", "step"), np.zeros((2, 3, 2, 2, 4))),
            "name": quantity("noise", list("abc")),
        },
        {
            "seed": quantity("seed", [0, 1]),
            "noise": quantity("noise", NOISE),
            "images": quantity("images", IMAGES),
            "focus": quantity("focus", FOCUS),
        },
    )


def maps(layout):
    return [pane.object for pane in layout[0]]


def widgets(layout):
    return {widget.name: widget.options for widget in layout[1:]}


def lines(overlay):
    """Return the curves of an overlay by label, as arrays (x, y)."""
    return {each.label: each.array() for each in overlay if type(each) is hv.Curve}


class TestChoice:
    def test_what_ends_alike_of_the_first(self):
        assert sweep_figures.drawable(dataset()) == ["tie_correlation", "fit_correlation"]

    def test_else_of_one_unit(self):
        some = xr.Dataset(
            {name: quantity("noise", NOISE, unit) for name, unit in (("a", "Å"), ("b", "s"), ("c", "Å"))},
            {"noise": quantity("noise", NOISE)},
        )
        assert sweep_figures.drawable(some) == ["a", "c"]

    @pytest.mark.parametrize(
        "nothing",
        [
            dataset()[["scalar", "name"]],
            dataset()[["course"]],  # five axes, and no values of the steps
            dataset()[["alone"]].drop_vars("noise"),
            dataset()[["alone"]].assign_coords(noise=quantity("noise", [0.1, 0.1, 0.2])),
            dataset()[["alone"]].assign_coords(noise=quantity("noise", [0.1, np.nan, 0.2])),
            dataset()[["alone"]].isel(noise=[0]),
        ],
    )
    def test_nothing(self, nothing):
        assert sweep_figures.drawable(nothing) == []
        with pytest.raises(InputError, match="nothing to draw"):
            sweep_figures.curves(nothing)

    def test_not_more_than_a_page_can_hold(self):
        many = {name: quantity(name, np.arange(size)) for name, size in (("a", 3), ("b", 9), ("c", 9))}
        big = xr.Dataset({"value": quantity(("a", "b", "c"), np.zeros((3, 9, 9)))}, many)
        assert sweep_figures.drawable(big) == []
        with pytest.raises(InputError, match="too many values for sliders"):
            sweep_figures.curves(big, ["value"])


class TestCurves:
    def test_each_number_is_where_the_sliders_say(self):
        layout = sweep_figures.curves(dataset())
        assert widgets(layout) == {"images": IMAGES, "focus": FOCUS}
        [drawn_] = maps(layout)
        for images in IMAGES:
            for focus in FOCUS:
                found = lines(drawn_[images, focus])
                expected = [1 + n + images / 100 + FOCUS.index(focus) / 1000 for n in NOISE]
                assert set(found) == {"tie", "fit"}
                np.testing.assert_allclose(found["tie"][:, 0], NOISE)
                np.testing.assert_allclose(found["tie"][:, 1], expected)
                np.testing.assert_allclose(found["fit"][:, 1], -np.array(expected))

    def test_along_another_axis(self):
        layout = sweep_figures.curves(dataset(), ["tie_seconds"], along="images")
        assert widgets(layout) == {"noise": NOISE, "focus": FOCUS}
        found = lines(maps(layout)[0][0.1, "strong"])["tie seconds"]
        np.testing.assert_allclose(found, [[2, 1.121], [4, 1.141]])

    def test_bands_are_the_extremes_of_the_seeds(self):
        [drawn_] = maps(sweep_figures.curves(dataset(), ["tie_correlation"]))
        [band] = [each for each in drawn_[2, "moderate"] if isinstance(each, hv.Area)]
        np.testing.assert_allclose(band.array()[:, 1:], [[0.52 + n, 1.52 + n] for n in NOISE])

    def test_without_seeds_there_is_no_band(self):
        [drawn_] = maps(sweep_figures.curves(dataset().isel(seed=0), ["tie_correlation"]))
        assert not [each for each in drawn_[2, "moderate"] if isinstance(each, hv.Area)]

    def test_texts_can_be_the_axis(self):
        found = lines(maps(sweep_figures.curves(dataset(), ["tie_correlation"], along="focus"))[0][0.2, 4])
        np.testing.assert_allclose(found["tie correlation"], [[0, 1.24], [1, 1.241]])

    def test_one_axis_needs_no_slider(self):
        layout = sweep_figures.curves(dataset(), ["alone"])
        assert [type(each) for each in layout] == [pn.pane.HoloViews]

    def test_all_positions_have_one_scale(self):
        [drawn_] = maps(sweep_figures.curves(dataset(), ["tie_correlation"]))
        ranges = {hv.Store.lookup_options("bokeh", each, "plot").kwargs["ylim"] for each in drawn_}
        [(low, high)] = ranges
        assert low < 0.52
        assert high > 1.741

    def test_decades_are_drawn_as_such(self):
        some = xr.Dataset(
            {"error": quantity("dose", [1.0, 1e-2, 1e-4])},
            {"dose": quantity("dose", [1e2, 1e3, 1e5], "1/Å^2")},
        )
        [pane] = sweep_figures.curves(some)
        options = hv.Store.lookup_options("bokeh", pane.object, "plot").kwargs
        assert (options["logx"], options["logy"]) == (True, True)
        assert options["xlabel"] == "dose (1/Å^2)"

    @pytest.mark.parametrize(
        ("names", "how", "named"),
        [
            (["tie"], {}, "no quantity 'tie'"),
            (["tie_seconds", "alone"], {}, "alone has other axes"),
            (["alone"], {"along": "images"}, "no axis 'images': it has noise"),
        ],
    )
    def test_refuses(self, names, how, named):
        with pytest.raises(InputError, match=named):
            sweep_figures.curves(dataset(), names, **how)


class TestTable:
    @staticmethod
    def found(name, record):
        made = {"made": "2031-02-03T04:05:06", "paper": "zhou2020", "study": "pair"}
        return Found(name, records.with_provenance(record, made))

    def test_says_axes_date_and_quantities(self):
        text = table([self.found("zhou2020/sweeps/pair-1.nc", dataset())])
        row = text.splitlines()[2]
        assert "seed 2 × noise 3 × images 2 × focus 2" in row
        assert "2031-02-03" in row
        assert "`tie_correlation`" in row
        assert "and 1 more" in row
        assert "not drawn" not in row

    def test_a_damaged_file_is_named_and_not_drawn(self):
        sweeps = [self.found("a.nc", dataset()), Found("b.nc", fault="damaged: remove it")]
        assert [each.name for each in drawn(sweeps)] == ["a.nc"]
        assert "`b.nc`" in table(sweeps)
        assert "damaged" in table(sweeps).splitlines()[3]

    def test_only_the_newest_are_drawn_and_the_others_say_so(self):
        sweeps = [self.found(f"{i}.nc", dataset()) for i in range(MOST_DRAWN + 2)]
        assert drawn(sweeps) == sweeps[:MOST_DRAWN]
        assert table(sweeps).count("not drawn: the newest") == 2

    def test_names_from_elsewhere_do_not_break_the_table(self):
        evil = dataset()[["alone"]].rename(alone="a|b`<script>")
        text = table([self.found("x|y`z.nc", evil)])
        assert [line.count("|") for line in text.splitlines()] == [6, 6, 6]
        assert "<" not in text
        assert "`" not in heading(self.found("x`y.nc", evil)).replace("`x y.nc`", "")

    def test_none(self):
        assert "none here yet" in table([])
