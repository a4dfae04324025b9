"""Figures of the one-shot chapter show what they are given."""

import numpy as np
import pytest
import xarray as xr

from exitwave.papers.ede2020 import baselines, data, figures, prediction
from exitwave.papers.ede2020.parameters import Parameters

pytestmark = pytest.mark.usefixtures("one_thread")

SMOKE = Parameters.at("smoke")


@pytest.fixture(scope="module", autouse=True)
def bokeh():
    import holoviews as hv

    hv.extension("bokeh")


@pytest.fixture(scope="module")
def run():
    made = [prediction.prediction(SMOKE.changed(seed=seed)) for seed in range(2)]
    return xr.concat(made, "seed").assign_coords(seed=[0, 1])


def test_a_structure_has_its_elements_and_one_cell():
    drawn = figures.structure(data.one_material(), (0, 0, 1), 1)
    assert {each.label for each in drawn} >= {"In", "K", "Se", "Sn"}
    outline = drawn.values()[-1].data[0]
    sides = np.hypot(np.diff(outline["x"]), np.diff(outline["y"])) if isinstance(outline, dict) else None
    if sides is not None:
        assert sides == pytest.approx([8.075] * 4)


def test_histograms_hold_every_crop(run):
    drawn = figures.histograms(run, "title")
    curves = [each for each in drawn if each.label]
    assert [each.label for each in curves] == list(figures._TITLES.values())
    for curve, name in zip(curves, prediction.SETS, strict=True):
        values = curve.dimension_values(1)
        assert values.sum() == pytest.approx(1)
        mean = (curve.dimension_values(0) * values).sum()
        assert mean == pytest.approx(float(run["error_of"].sel(set=name).mean()), abs=0.04)


def test_a_course_is_the_mean_over_seeds(run):
    learned, judged = figures.course({"one": run, "none": None})
    assert [learned.label, judged.label] == ["one, training", "one, unseen materials"]
    assert learned.dimension_values(1) == pytest.approx(run["learned"].mean("seed").values)
    expected = run["course"].sel(set="materials").mean("seed").values
    assert judged.dimension_values(1) == pytest.approx(expected)
    assert learned.dimension_values(0)[-1] == judged.dimension_values(0)[-1]


def test_examples_are_three_images_of_each_crystal(run):
    drawn = figures.examples(run)
    assert len(drawn) == 12
    assert [each.opts.get("plot").kwargs["title"] for each in drawn[::3]] == [
        "NaCl",
        "PbTiO3 alloy",
        "CdTe",
        "Si",
    ]
    assert [each.opts.get("plot").kwargs["title"] for each in drawn[1:3]] == ["true phase", "network"]


def test_equations_and_residuals_are_drawn_from_their_runs():
    used = xr.concat([baselines.equations(SMOKE)], "seed")
    one, two = figures.equations(used)
    for curve, name in zip(one, ("potential_correlation", "turned_correlation"), strict=True):
        assert curve.dimension_values(1) == pytest.approx(used[name].values[0])
    assert two.dimension_values(0) == pytest.approx(used["pixel"].values)
    series = xr.concat([baselines.focal_series(SMOKE)], "seed")
    fall, base = figures.residual(series)
    assert len(fall.dimension_values(0)) == 21
    assert base.dimension_values(0)[np.argmin(base.dimension_values(1))] == pytest.approx(1)


def test_the_cover_is_a_picture():
    assert figures.cover(Parameters.at("workshop")).startswith(b"\x89PNG")
