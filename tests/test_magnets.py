"""Bars and films."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from exitwave.errors import InputError
from exitwave.specimens import magnets


@given(seed=st.integers(0, 10_000))
def test_ten_bars_lie_inside_and_apart(seed):
    bars = magnets.ten_bars(1.0, np.random.default_rng(seed))
    assert len(bars) == 10
    assert sum(bar.vertical for bar in bars) == 5
    boxes = []
    for bar in bars:
        half_y, half_x = (size / 2 for size in bar.size_yx)
        assert bar.length > bar.width
        assert 0.1 < bar.centre_y - half_y < bar.centre_y + half_y < 0.9
        assert 0.1 < bar.centre_x - half_x < bar.centre_x + half_x < 0.9
        boxes.append(
            (bar.centre_y - half_y, bar.centre_y + half_y, bar.centre_x - half_x, bar.centre_x + half_x)
        )
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            assert a[0] > b[1] or b[0] > a[1] or a[2] > b[3] or b[2] > a[3]


def test_seed_decides():
    one, same, other = (magnets.ten_bars(1.0, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert one == same
    assert one != other
    assert {bar.sign for bar in one} == {-1, 1}


@given(
    y=st.floats(500, 1500), x=st.floats(500, 1500), length=st.floats(60, 800), width=st.floats(5, 300),
    vertical=st.booleans(), step=st.sampled_from([10.0, 25.0]),
)  # fmt: skip
def test_rasterised_bar_keeps_its_area_and_moment(y, x, length, width, vertical, step):
    bar = magnets.Bar(y, x, length, width, vertical, sign=-1)
    n = int(2000 / step)
    film = magnets.film_of_bars((bar,), (n, n), (step, step), thickness=50.0, saturation=2.0)
    assert float(film.coverage.sum()) * step**2 == pytest.approx(length * width, rel=1e-9)
    assert float(film.coverage.max()) <= 1 + 1e-12
    along, across = film.magnetisation[int(vertical)], film.magnetisation[1 - int(vertical)]
    assert float(along.sum()) * step**2 == pytest.approx(-2 * length * width, rel=1e-9)
    assert float(across.abs().max()) == 0


def test_film_of_a_magnetisation_takes_the_mean_of_its_layers():
    values = np.zeros((3, 2, 4, 5))
    values[:, 0, 1, 2] = 1.0, 2.0, 3.0
    values[:, 1, 1, 2] = 3.0, 0.0, 3.0
    values[:, 1, 0, 0] = 1.0, 0.0, 0.0
    film = magnets.film_of_magnetisation(values, (20.0, 50.0, 40.0))
    assert film.thickness == 40.0
    assert film.sampling == (50.0, 40.0)
    assert film.magnetisation[:, 1, 2].tolist() == [2.0, 1.0]
    assert film.magnetisation[:, 0, 0].tolist() == [0.5, 0.0]
    assert film.coverage[1, 2] == 1
    assert film.coverage[0, 0] == 0.5
    assert int((film.coverage > 0).sum()) == 2


def test_bad_input():
    with pytest.raises(InputError, match="zero everywhere"):
        magnets.film_of_magnetisation(np.zeros((3, 1, 2, 2)), (1.0, 1.0, 1.0))
    with pytest.raises(InputError, match="thickness 0"):
        magnets.film_of_bars((), (8, 8), (1.0, 1.0), thickness=0)
    assert torch.equal(
        magnets.film_of_bars((), (8, 8), (1.0, 1.0), thickness=1.0).coverage,
        torch.zeros(8, 8, dtype=torch.float64),
    )
