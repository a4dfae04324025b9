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


def scalars(**values):
    return xr.Dataset(
        {name: ("seed", [value - 0.1, value + 0.1]) for name, value in values.items()}
    ).assign_coords(seed=[0, 1])


def test_fits_have_errors_and_residuals():
    ways = ("constant", "start", "zero", "after", "together", "chosen", "right")
    values = {f"{name}_{way}": i + 1.0 for name in ("parameters", "materials") for i, way in enumerate(ways)}
    values |= {f"{name}_zero_residual": 0.2 for name in ("parameters", "materials")}
    run = scalars(**values).assign_coords(set=["parameters", "materials"])
    lines = drawn.fits(run).splitlines()
    assert len(lines) == 2 + len(ways)
    assert lines[0] == "| cyclic error, rad (residual) | parameters | materials |"
    assert lines[4].endswith("| 3.000 (0.200) | 3.000 (0.200) |")
    assert lines[5].endswith("| 4.000 | 4.000 |")


def test_fitted_phases_are_drawn_beside_the_truth():
    pixels = np.zeros((2, 8, 8), np.uint8)
    run = xr.Dataset(
        {
            name: (("seed", "y", "x"), pixels + i)
            for i, name in enumerate(("amplitude", "phase", "network", "by_zero", "by_after"))
        }
    )
    run = run.assign(formula=("seed", ["NaCl", "Si"])).assign_coords(seed=[0, 1])
    titles = [each.opts.get("plot").kwargs["title"] for each in drawn.fitted(run)]
    assert titles == ["NaCl", "true phase", "network", "columns", "columns after network"]


def test_sharded_learning_stands_beside_waves_without_a_network():
    one = scalars(
        cyclic=0.3,
        wave=0.5,
        foci=1.0,
        constant_cyclic=0.4,
        constant_wave=0.7,
        constant_foci=1.1,
        start_cyclic=0.35,
        start_wave=0.6,
        start_foci=0.9,
    )
    lines = drawn.shards({"idea": one, "none": None}).splitlines()
    assert lines[2:] == [
        "| the modulus as the wave | 0.400 | 0.700 | 1.100 |",
        "| that, brought back to focus | 0.350 | 0.600 | 0.900 |",
        "| idea | 0.300 | 0.500 | 1.000 |",
    ]


def test_losses_are_those_of_the_run():
    run = scalars(
        true_judged=0.5, constant_judged=0.3, start_judged=0.3, conjugated_judged=0.3, untold_judged=0.5
    )
    lines = drawn.losses(run).splitlines()
    assert lines[2] == "| true waves | 0.50 |"
    assert lines[-1] == "| conjugated waves, sign of the defocus not told | 0.50 |"
