"""Colours of vector fields: the same direction has the same colour in map and key."""

import io

import numpy as np
import pytest
from PIL import Image

from exitwave.papers import figures, pictures


@pytest.fixture(scope="module", autouse=True)
def bokeh():
    import holoviews as hv

    hv.extension("bokeh")


def rgb(index):
    colour = figures.palette()[int(index)]
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])


class TestVectors:
    def test_palette_is_256_colours(self):
        colours = figures.palette()
        assert len(colours) == 256
        assert all(len(each) == 7 and each[0] == "#" for each in colours)

    def test_length_is_brightness(self):
        sums = [rgb(each).sum() for each in figures.colour_index(np.zeros(3), np.array([0.0, 0.5, 1.0]))]
        assert sums[0] == 0
        assert sums == sorted(sums)
        assert sums[2] > 300

    def test_opposite_directions_differ_most(self):
        here = figures.colour_index(np.linspace(0, 2 * np.pi, 24, endpoint=False), np.ones(24))
        assert len(set(here.tolist())) == 24
        right, left = rgb(here[0]).astype(int), rgb(here[12]).astype(int)
        assert np.abs(right - left).max() == 255

    def test_a_full_turn_returns(self):
        angles = np.array([0.3, 0.3 + 2 * np.pi, 0.3 - 2 * np.pi])
        assert len(set(figures.colour_index(angles, np.ones(3)).tolist())) == 1

    @pytest.mark.parametrize(("y", "x", "row", "column"), [(0, 1, 64, 126), (0, -1, 64, 1), (1, 0, 126, 64)])
    def test_map_and_key_agree(self, y, x, row, column):
        # A vector with positive y points down in the image, as the row index grows.
        field = np.ones((8, 8))
        drawn = figures.vectors(y * field, x * field, 10.0, largest=1.0)
        key = figures.colour_wheel()
        wheel = key.dimension_values("value", flat=False)
        at = rgb(drawn.dimension_values("value", flat=False)[0, 0]).astype(int)
        assert np.abs(at - rgb(wheel[row, column])).max() < 80

    def test_contours_are_grey_where_levels_meet(self):
        field = np.ones((8, 8))
        levels = np.repeat([[0, 0, 0, 0, 1, 1, 1, 1]], 8, axis=0)
        drawn = figures.vectors(0 * field, field, 10.0, contours=levels).dimension_values("value", flat=False)
        assert (drawn[:, 3] == 254).all()
        assert (drawn[:, [0, 1, 2, 4, 5, 6]] != 254).all()


class TestShrunk:
    """A picture that is narrower, and the same."""

    def picture(self, width):
        """Return a PNG with more colours than a palette has."""
        across = np.linspace(0, 255, width).astype(np.uint8)[None].repeat(60, 0)
        down = np.linspace(0, 255, 60).astype(np.uint8)[:, None].repeat(width, 1)
        made = io.BytesIO()
        Image.fromarray(np.stack([across, down, 255 - across], -1)).save(made, "PNG")
        return made.getvalue()

    @pytest.mark.parametrize(("width", "left"), [(1000, 400), (300, 300)])
    def test_width_and_values(self, width, left):
        before, after = (
            Image.open(io.BytesIO(each))
            for each in (self.picture(width), pictures.shrunk(self.picture(width), 400))
        )
        assert after.size == (left, round(60 * left / width))
        wanted = np.asarray(before.resize(after.size), int)
        # A pixel is at most 255 / 60 from the next, and half of that from where it is sampled.
        assert np.abs(np.asarray(after, int) - wanted).max() <= 3
