"""The magnetic phase of a uniformly magnetised disk in closed form, and a field that does not wrap."""

import math

import pytest
import torch

from exitwave import metrics
from exitwave.simulate import lorentz
from exitwave.specimens import magnets

SATURATION, THICKNESS, RADIUS = 8e5, 100.0, 1500.0
SLOPE = lorentz.PHASE_GRADIENT_PER_MAGNETISATION * SATURATION * THICKNESS  # rad/Å of a long bar
DIRECTIONS = [(1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0), (0.6, -0.8)]


def centred(n, step):
    axis = (torch.arange(n, dtype=torch.float64) - (n - 1) / 2) * step
    return axis[:, None], axis[None, :]


def disk(n, step, direction, fine=16):
    """A disk in the middle of the field; a pixel carries the fraction of it that is covered."""
    y, x = centred(n * fine, step / fine)
    inside = (y**2 + x**2 < RADIUS**2).double()
    coverage = torch.nn.functional.avg_pool2d(inside[None], fine)[0]
    mx, my = direction
    magnetisation = SATURATION * torch.stack([mx * coverage, my * coverage])
    return magnets.Film(magnetisation, coverage, THICKNESS, (step, step))


def closed_form(n, step, direction):
    """-(e mu0 t / 2 hbar) (M x r)_z, outside the disk times (R / r)^2; M x r = Mx y - My x.

    That is the integral of -(e mu0 t / 2 pi hbar) (M x r') / r'^2 of `rectangle_phase`: the field of an
    evenly charged disk in the plane is pi r inside and pi R^2 r / r^2 outside.
    """
    y, x = centred(n, step)
    mx, my = direction
    return -0.5 * SLOPE * (mx * y - my * x) * (RADIUS**2 / (x**2 + y**2)).clamp_max(1.0)


class TestDisk:
    @pytest.mark.parametrize("direction", DIRECTIONS)
    def test_kernel_gives_the_closed_form(self, direction):
        # A rim pixel is a square of even magnetisation rather than cut: what that misses is a fraction of
        # the ramp over one pixel, within some pixels of the rim, and falls with the pixel size.
        at_rim, elsewhere = [], []
        for n in (24, 48, 96):
            step = 4800.0 / n
            error = lorentz.magnetic_phase(disk(n, step, direction)) - closed_form(n, step, direction)
            y, x = centred(n, step)
            far = (torch.hypot(y, x) - RADIUS).abs() > 800.0  # 4 pixels of the coarsest
            at_rim.append(float(error.abs().max()))
            elsewhere.append(float(error[far].abs().max()))
            assert at_rim[-1] < 0.25 * SLOPE * step
        # By halving the pixels: at the rim at first order, elsewhere at second.
        assert at_rim[1] < 0.75 * at_rim[0]
        assert at_rim[2] < 0.75 * at_rim[1]
        assert elsewhere[2] < 0.3 * elsewhere[0]
        assert elsewhere[2] < 2e-3 * 0.5 * SLOPE * RADIUS

    @pytest.mark.parametrize("direction", DIRECTIONS)
    def test_sign(self, direction):
        # Reversed or mirrored it is another phase altogether.
        found = lorentz.magnetic_phase(disk(48, 100.0, direction))
        exact = closed_form(48, 100.0, direction)
        assert metrics.correlation(found, exact) > 0.9999
        assert metrics.correlation(found, closed_form(48, 100.0, (-direction[0], -direction[1]))) < -0.9999
        turned = closed_form(48, 100.0, (direction[1], -direction[0]))
        assert abs(float(metrics.correlation(found, turned))) < 1e-6

    def test_is_that_of_the_rectangles_it_is_made_of(self):
        # The sign of the closed form is that of `rectangle_phase`: a coarse disk out of strips.
        y, x = centred(25, 190.0)
        strips = torch.zeros_like(y + x)
        width = 25.0
        for centre in torch.arange(-RADIUS + width / 2, RADIUS, width, dtype=torch.float64):
            half = math.sqrt(RADIUS**2 - float(centre) ** 2)
            strips += lorentz.rectangle_phase(
                y, x - centre, size=(2 * half, width), magnetisation=(0.6 * SATURATION, -0.8 * SATURATION),
                thickness=THICKNESS,
            )  # fmt: skip
        # rectangle_phase is nought at the centre of each strip: its constant is that of the definition.
        exact = closed_form(25, 190.0, (0.6, -0.8))
        assert float((strips - exact).abs().max()) < 0.01 * float(exact.abs().max())

    def test_rises_half_as_fast_as_a_long_bar(self):
        # The demagnetising factor of a disk in the plane is one half.
        phase = lorentz.magnetic_phase(disk(96, 50.0, (0.0, 1.0)))
        assert float(phase[48, 58] - phase[48, 38]) / 1000.0 == pytest.approx(0.5 * SLOPE, rel=1e-3)
        phase = lorentz.magnetic_phase(disk(96, 50.0, (1.0, 0.0)))
        assert float(phase[58, 48] - phase[38, 48]) / 1000.0 == pytest.approx(-0.5 * SLOPE, rel=1e-3)


class TestEmbedding:
    @staticmethod
    def embedded(film, before, after):
        pad = (before, after, before, after)
        return magnets.Film(
            torch.nn.functional.pad(film.magnetisation, pad),
            torch.nn.functional.pad(film.coverage, pad),
            film.thickness,
            film.sampling,
        )

    @pytest.mark.parametrize("margins", [(16, 16), (3, 40), (0, 48)])
    def test_kernel_does_not_wrap(self, margins):
        film = disk(32, 100.0, (0.6, -0.8))  # as large as its field, all but a pixel
        inner = slice(margins[0], margins[0] + 32)
        small = lorentz.magnetic_phase(film)
        large = lorentz.magnetic_phase(self.embedded(film, *margins))[inner, inner]
        assert float((large - small).abs().max()) < 1e-10 * float(small.abs().max())

    def test_fourier_without_padding_does(self):
        film = disk(32, 100.0, (0.6, -0.8))
        small = lorentz.magnetic_phase(film, method="fourier", padding=1)
        large = lorentz.magnetic_phase(self.embedded(film, 16, 16), method="fourier", padding=1)[16:48, 16:48]
        difference = (large - small) - (large - small).mean()
        # Its field repeats: on a field twice as large the neighbours add a quarter as much.
        assert float(difference.abs().max()) > 0.1 * float(small.abs().max())
        exact = lorentz.magnetic_phase(film)
        for found, least in ((small, 0.2), (large, 0.05)):
            error = found - exact - (found - exact).mean()
            assert float(error.abs().max()) > least * float(exact.abs().max())
