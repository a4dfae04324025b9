"""The resolution target and its relaxation."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from exitwave.errors import InputError, RunError
from exitwave.specimens import magnets, micromagnetics, target

SHAPE, SAMPLING = (target.CELLS, target.CELLS), (target.CELL, target.CELL)


def draw(seed=0):
    return target.resolution_target(np.random.default_rng(seed))


def rasterised(bars):
    return magnets.film_of_bars(bars, SHAPE, SAMPLING, thickness=100, saturation=1.0)


def box(bar):
    """First and last border of a bar in cells, (top, bottom, left, right)."""
    size_y, size_x = bar.size_yx
    ends = (bar.centre_y - size_y / 2, bar.centre_y + size_y / 2)
    ends += (bar.centre_x - size_x / 2, bar.centre_x + size_x / 2)
    return tuple(end / target.CELL + 0.5 for end in ends)


def cells(bar):
    top, bottom, left, right = (round(end) for end in box(bar))
    return np.s_[top:bottom, left:right]


class TestLayout:
    def test_sixty_bars_and_a_square_on_whole_cells(self):
        bars = draw()
        assert len(bars) == 61
        assert all(bar.length == pytest.approx(5 * bar.width) for bar in bars[:-1])
        assert bars[-1].length == bars[-1].width
        assert sum(bar.vertical for bar in bars[:-1]) == 30
        for bar in bars:
            assert box(bar) == pytest.approx([round(end) for end in box(bar)], abs=1e-9)
            assert min(box(bar)) >= 36
            assert max(box(bar)) <= target.CELLS - 36

    def test_none_overlap(self):
        coverage = rasterised(draw()).coverage
        # Whole cells, none covered twice, and as many as the bars have.
        assert float((coverage * (1 - coverage)).abs().max()) < 1e-12
        assert float(coverage.max()) == pytest.approx(1.0)
        assert float(coverage.min()) == 0.0
        area = sum(bar.length * bar.width for bar in draw()) / target.CELL**2
        assert float(coverage.sum()) == pytest.approx(area)

    def test_elements_lie_apart(self):
        # At least a width of the finer one lies between any two bars, also of different elements.
        bars = draw()
        for i, one in enumerate(bars):
            for other in bars[:i]:
                a, b = box(one), box(other)
                gap = max(a[0] - b[1], b[0] - a[1], a[2] - b[3], b[2] - a[3])
                assert gap >= min(one.width, other.width) / target.CELL - 1e-9

    def test_widths_fall_from_110_to_20_nm(self):
        bars = draw()[:-1]
        widths = [bars[6 * i].width for i in range(10)]
        assert widths[0] == 1100.0
        assert widths[-1] == 200.0
        assert all(np.diff(widths) < 0)
        for i, width in enumerate(widths):
            assert {bar.width for bar in bars[6 * i : 6 * i + 6]} == {width}

    def test_bars_of_an_element_are_a_width_apart(self):
        bars = draw()[:-1]
        for i in range(10):
            element = bars[6 * i : 6 * i + 6]
            width = element[0].width
            across = sorted(bar.centre_x for bar in element if bar.vertical)
            assert np.diff(across) == pytest.approx([2 * width] * 2)
            assert len({bar.centre_y for bar in element if bar.vertical}) == 1
            down = sorted(bar.centre_y for bar in element if not bar.vertical)
            assert np.diff(down) == pytest.approx([2 * width] * 2)
            assert len({bar.centre_x for bar in element if not bar.vertical}) == 1
            # Side by side, two widths between those along y and those along x.
            right = max(box(bar)[3] for bar in element if bar.vertical)
            left = min(box(bar)[2] for bar in element if not bar.vertical)
            assert left - right == pytest.approx(2 * width / target.CELL)
            assert (
                len({round(min(box(b)[0] for b in element if b.vertical is v)) for v in (True, False)}) == 1
            )

    @given(seed=st.integers(0, 10_000))
    def test_a_seed_draws_the_senses_and_nothing_else(self, seed):
        bars, others = draw(seed), draw(seed + 1)
        assert bars == draw(seed)
        assert {bar.sign for bar in bars} == {-1, 1}
        assert [bar.sign for bar in bars] != [bar.sign for bar in others]
        assert [(b.centre_y, b.centre_x, b.size_yx) for b in bars] == [
            (b.centre_y, b.centre_x, b.size_yx) for b in others
        ]


class TestScale:
    @pytest.mark.parametrize(
        ("pixels", "sampling", "scale"),
        [(512, 50.0, 1.0), (256, 100.0, 0.5), (128, 200.0, 0.25), (1024, 25.0, 2.0), (64, 400.0, 0.125)],
    )
    def test_of_fields_that_fit(self, pixels, sampling, scale):
        assert target.scale_of(pixels, sampling) == scale

    @pytest.mark.parametrize(
        ("pixels", "sampling"),
        [(512, 100.0), (512, 49.9), (256, 50.0), (500, 51.2), (384, 25600 / 384), (768, 25600 / 768),
         (0, 50.0), (512, -50.0), (512, float("inf"))],
    )  # fmt: skip
    def test_of_others(self, pixels, sampling):
        with pytest.raises(InputError, match="do not fit the resolution target"):
            target.scale_of(pixels, sampling)


class TestStartState:
    @settings(deadline=None, max_examples=3)
    @given(seed=st.integers(0, 1000))
    def test_covers_exactly_the_film_with_unit_vectors(self, seed):
        generator = np.random.default_rng(seed)
        bars = target.resolution_target(generator)
        start = target.start_state(bars, generator)
        length = np.linalg.norm(start, axis=0)
        assert start.shape == (3, *SHAPE)
        assert np.allclose(length, rasterised(bars).coverage.numpy(), atol=1e-12)
        assert (start[:, length < 0.5] == 0).all()

    def test_without_tilt_the_bars_are_those_of_the_film(self):
        bars = draw(3)
        start = target.start_state(bars, np.random.default_rng(0), tilt=0.0)
        film = rasterised(bars[:-1])
        outside = np.ones(SHAPE, dtype=bool)
        outside[cells(bars[-1])] = False
        assert np.allclose(start[:2, outside], film.magnetisation.numpy()[:, outside], atol=1e-12)
        assert (start[2, outside] == 0).all()

    def test_each_bar_is_turned_a_little_from_its_sense(self):
        bars = draw(5)
        start = target.start_state(bars, np.random.default_rng(1), tilt=0.2)
        turns = []
        for bar in bars[:-1]:
            inside = start[:, *cells(bar)].reshape(3, -1)
            assert np.ptp(inside, axis=1).max() == 0.0
            along, across = inside[int(bar.vertical), 0], inside[1 - int(bar.vertical), 0]
            assert bar.sign * along > 0.7
            turns.append(np.arcsin(across))
        # 60 angles of standard deviation 0.2: 9 % standard error.
        assert np.std(turns) == pytest.approx(0.2, rel=0.3)
        assert len(set(turns)) == 60

    @pytest.mark.parametrize("seed", range(4))
    def test_the_square_is_a_loop_of_its_sense(self, seed):
        square = draw(seed)[-1]
        start = target.start_state(draw(seed), np.random.default_rng(0))
        mx, my, mz = start[:, *cells(square)]
        curl = np.gradient(my, axis=1) - np.gradient(mx, axis=0)
        assert np.sign(curl.mean()) == square.sign
        # Counter-clockwise from +x to +y for a positive sense: at the right border +y, at the lower +x.
        assert square.sign * my[30, -1] > 0.99
        assert square.sign * my[30, 0] < -0.99
        assert square.sign * mx[0, 30] > 0.99
        assert square.sign * mx[-1, 30] < -0.99
        # No charge but at the core, which stands up.
        assert abs((np.gradient(mx, axis=1) + np.gradient(my, axis=0)).mean()) < 1e-12
        assert np.abs(mz).max() > 0.8
        assert np.abs(mz[0]).max() < 1e-12

    def test_both_senses_of_the_loop_are_drawn(self):
        assert {draw(seed)[-1].sign for seed in range(20)} == {-1, 1}


def one_bar(sense=1, angle=0.4):
    """One bar of 12 x 4 cells along x in a field of 16 x 16, magnetised at an angle to itself."""
    start = np.zeros((3, 16, 16))
    start[0, 6:10, 2:14] = sense * np.cos(angle)
    start[1, 6:10, 2:14] = sense * np.sin(angle)
    return start


def relax(start, **more):
    settings = {"saturation": 8e5, "exchange": 1.3e-11, "tolerance": 100.0, **more}
    return micromagnetics.relax(start, cell=(100.0, 50.0, 50.0), **settings)


@pytest.fixture(scope="module")
def relaxed():
    """What the bar relaxed to, the state after the first step, what was observed, and torch's number type."""
    before = torch.get_default_dtype()
    seen = []
    found = relax(one_bar(), observe=lambda *each: seen.append(each))
    return found, relax(one_bar(), tolerance=float("inf")), seen, (before, torch.get_default_dtype())


class TestRelaxation:
    def test_comes_to_rest(self, relaxed):
        found, _, seen, _ = relaxed
        assert 0 < found.torque < 100.0
        assert [step for step, _ in seen] == list(range(1, found.steps + 1))
        assert seen[-1] == (found.steps, found.torque)
        assert all(torque >= 100.0 for _, torque in seen[:-1])
        assert seen[0][1] > 1e4

    def test_length_stays_one_and_vacuum_empty(self, relaxed):
        film = np.linalg.norm(one_bar(), axis=0) > 0.5
        length = np.linalg.norm(relaxed[0].direction, axis=0)
        assert relaxed[0].direction.shape == (3, 16, 16)
        assert relaxed[0].direction.dtype == np.float64
        assert np.abs(length[film] - 1).max() < 1e-6
        assert (relaxed[0].direction[:, ~film] == 0).all()

    def test_lies_along_the_bar_with_the_sense_of_the_start(self, relaxed):
        mx, my, mz = relaxed[0].direction[:, 6:10, 2:14]
        assert mx.min() > 0.8  # the ends bend
        assert mx[:, 4:8].min() > 0.99
        assert np.abs(mz).max() < 0.01
        # What bends bends both ways: nothing is left of the angle of the start.
        assert abs(my.mean()) < 0.01

    def test_loses_energy(self, relaxed):
        found, first, _, _ = relaxed
        assert first.steps == 1
        assert 0 < found.energy < first.energy
        # By the order of magnitude of mu0 Ms^2 V: the shape alone is worth a third of that between the axes.
        volume = 48 * 100.0 * 50.0 * 50.0 * 1e-30
        unit = 4e-7 * np.pi * 8e5**2 * volume
        assert 0.01 * unit < found.energy < 0.5 * unit

    # The magnetisation is an axial vector, the film symmetric: after one step these hold as at rest.

    def test_reversed_start_is_a_half_turn(self, relaxed):
        turned = relax(one_bar(sense=-1), tolerance=float("inf"))
        expected = relaxed[1].direction[:, ::-1, ::-1] * np.array([-1, -1, 1])[:, None, None]
        assert np.allclose(turned.direction, expected, atol=1e-9)
        assert turned.energy == pytest.approx(relaxed[1].energy, rel=1e-9)

    def test_mirrored_at_the_diagonal(self, relaxed):
        def mirror(direction):
            return -direction[[1, 0, 2]].transpose(0, 2, 1)

        found = relax(mirror(one_bar()), tolerance=float("inf"))
        assert np.allclose(found.direction, mirror(relaxed[1].direction), atol=1e-9)
        # The other sense of rotation is another state.
        assert not np.allclose(found.direction, -mirror(relaxed[1].direction), atol=1e-3)

    def test_place_in_the_field_does_not_matter(self, relaxed):
        moved = relax(np.roll(one_bar(), (5, -2), (1, 2)), tolerance=float("inf"))
        assert np.allclose(moved.direction, np.roll(relaxed[1].direction, (5, -2), (1, 2)), atol=1e-9)

    def test_number_type_of_torch_is_restored(self, relaxed):
        assert relaxed[3] == (torch.float32, torch.float32)

    def test_too_few_steps(self):
        with pytest.raises(RunError, match=r"did not relax to 100 A/m in 3 steps of 10 ps"):
            relax(one_bar(), max_steps=3)
        assert torch.get_default_dtype() == torch.float32

    @pytest.mark.parametrize(
        "start",
        [
            2 * one_bar(),
            0.9 * one_bar(),
            np.zeros((3, 16, 16)),
            one_bar()[:2],
            one_bar()[0],
            np.full((3, 16, 16), np.nan),
        ],
        ids=["twice", "short", "empty", "two components", "one component", "not a number"],
    )
    def test_start_that_is_no_direction(self, start):
        with pytest.raises(InputError, match="is not made of unit vectors"):
            relax(start)


class TestWindow:
    @given(data=st.data())
    def test_holds_the_film_within_the_field(self, data):
        size = data.draw(st.integers(1, 300))
        first = data.draw(st.integers(0, size - 1))
        last = data.draw(st.integers(first, size - 1))
        occupied = np.zeros(size, dtype=bool)
        occupied[[first, last]] = True
        window = micromagnetics._window(occupied)
        assert 0 <= window.start <= first
        assert last < window.stop <= size
        # Not much longer than the film: the next product of small primes is near.
        assert window.stop - window.start <= max(1.2 * (last - first + 1), last - first + 4)
