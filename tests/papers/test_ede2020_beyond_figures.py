"""Figures beyond the paper show what they are given."""

import math

import numpy as np
import pytest
import xarray as xr

from exitwave.papers.ede2020 import beyond_figures as drawn


@pytest.fixture(scope="module", autouse=True)
def bokeh():
    import holoviews as hv

    hv.extension("bokeh")


@pytest.fixture
def run():
    generator = np.random.default_rng(0)
    turns = generator.integers(0, 256, (1, 2, 4, 8, 8)).astype(np.uint8)
    best = np.array([[[1.2, 1.0, 0.9, 0.8], [1.3, 1.2, 1.1, 1.0]]])
    return xr.Dataset(
        {
            "input": (("seed", "shown", "y", "x"), turns[:, :, 0]),
            "phase": (("seed", "shown", "y", "x"), turns[:, :, 1]),
            "made": (("seed", "shown", "y", "x"), turns[:, :, 2]),
            "drawn": (("seed", "shown", "count", "y", "x"), turns),
            "best": (("seed", "set", "count"), best),
            "best_of_others": (("seed", "set", "count"), best + 0.1),
            "ranks": (("seed", "set", "rank"), np.full((1, 2, 9), 1 / 9)),
        },
        {"seed": [0], "set": ["parameters", "materials"], "count": [1.0, 2.0, 4.0, 8.0]},
    )


def values(image):
    return image.dimension_values(image.vdims[0], flat=False)


def test_turns_become_phases_around_zero(run):
    stored = np.array([[0, 64, 127, 129, 192, 255]] * 6, np.uint8)
    levels = values(drawn.phase(stored))[0].astype(float)
    wanted = [0, math.pi / 2, 127 * math.pi / 128, -127 * math.pi / 128, -math.pi / 2, -math.pi / 128]
    # Drawn in 256 levels from -π to π.
    assert levels * 2 * math.pi / 255 - math.pi == pytest.approx(wanted, abs=math.pi / 255)


def test_examples_and_alternatives_have_their_titles(run):
    titles = [each.opts.get("plot").kwargs["title"] for each in drawn.examples(run)]
    assert titles == ["|ψ|", "true phase", "network"] * 2
    titles = [each.opts.get("plot").kwargs["title"] for each in drawn.alternatives(run, count=2)]
    assert titles == ["|ψ|", "true phase", "drawn, 1", "drawn, 2"]


def test_curves_are_those_of_the_sets(run):
    curves = list(drawn.best_of(run))
    assert [each.label for each in curves] == [
        "unseen parameters", "unseen parameters, of another crop",
        "unseen materials", "unseen materials, of another crop",
    ]  # fmt: skip
    assert curves[0].dimension_values(1) == pytest.approx([1.2, 1.0, 0.9, 0.8])
    assert curves[3].dimension_values(1) == pytest.approx([1.4, 1.3, 1.2, 1.1])


def test_level_ranks_are_on_the_line(run):
    one, two, line = drawn.ranks(run)
    assert one.dimension_values(1) == pytest.approx([1 / 9] * 9)
    assert two.label == "unseen materials"
    assert line.data == pytest.approx(1 / 9)


def test_a_table_has_a_row_for_each_run_there_is():
    sets = ("transforms", "parameters", "materials")
    run = xr.Dataset(
        {
            f"{name}_{kind}": ("seed", [i + 0.1, i + 0.3])
            for i, name in enumerate(sets)
            for kind in ("cyclic", "constant")
        }
    ).assign(parameters=("seed", [190_000.0, 190_000.0]))
    text = drawn.table(
        [("one", run, "cyclic"), ("none", None, "cyclic"), ("still", run, "constant")], "error"
    )
    assert text.splitlines()[2:] == [
        "| one | 190 | 0.200 | 1.200 | 2.200 |",
        "| still |  | 0.200 | 1.200 | 2.200 |",
    ]
