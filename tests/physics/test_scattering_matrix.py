"""4D-STEM by the scattering matrix: the probes it stands for, atoms in slices, larger pixels, bad input."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from exitwave import optics
from exitwave.errors import InputError
from exitwave.simulate import scanning
from exitwave.simulate import scattering_matrix as matrices
from exitwave.simulate.exit_waves import Multislice, band_limit, simulate

pytestmark = pytest.mark.usefixtures("one_thread")

ENERGY, STEP, ANGLE, SPACING = 80e3, (0.21, 0.2), 0.021, 3.0
HOW = Multislice(ENERGY, STEP, (48, 50))
LENS = optics.Aberrations(C10=-40.0, C12=25.0, phi12=0.5, C21=3e3, phi21=1.1)
# To the band of the grid, 2/3 of 1 / 2 dy.
WIDE = 2 / 3 / (2 * STEP[0]) * optics.wavelength(ENERGY)
LARGEST = 0.9 * WIDE
NUMBERS = np.array([42, 16, 16, 42])
POSITIONS = np.array([[3.1, 4.0, 1.5], [5.9, 2.2, 0.1], [5.8, 2.4, 3.2], [7.0, 8.3, 7.4]])


@pytest.fixture(scope="module")
def slices():
    found = matrices.layers(NUMBERS, POSITIONS, 9.0, SPACING)
    return matrices.transmissions(NUMBERS, POSITIONS, HOW, found, dtype=torch.complex128)


@pytest.fixture(scope="module")
def matrix(slices):
    options = {"semiangle": ANGLE, "spacing": SPACING, "largest": LARGEST}
    return matrices.scattering_matrix(slices, HOW, exits=[1, 3, 5], **options)


@pytest.mark.parametrize(("which", "count"), [(0, 1), (1, 3), (2, 5)])
def test_patterns_are_those_of_a_probe_carried_through(slices, matrix, which, count):
    # By the forward model of the probe, whose window is the whole field; an exit behind the last slice meets
    # the first ones again. What is beyond the band behind the last slice is left there in one.
    where = torch.tensor([[1.3, 2.9], [0.41, 5.07], [9.9, 9.9]], dtype=torch.float64)
    probe = scanning.probe(
        HOW.shape, STEP, energy=ENERGY, semiangle=ANGLE, aberrations=LENS, dtype=torch.complex128
    )
    free = optics.propagator(HOW.shape, STEP, SPACING, ENERGY, dtype=torch.complex128)
    band = band_limit(HOW)
    stack = torch.stack([slices[i % 3] for i in range(count)])
    expected = scanning.patterns(stack, probe, where, STEP, propagator=free * band)
    found = matrices.patterns(matrix[which], where, LENS)
    ky, kx = optics.frequency_grid(HOW.shape, STEP)
    rows, columns = (
        (each.flatten().abs() * optics.wavelength(ENERGY) <= LARGEST).nonzero().flatten() for each in (ky, kx)
    )
    inner = (band[rows][:, columns] > 0)[None]
    torch.testing.assert_close(found * inner, expected[:, rows][:, :, columns] * inner, rtol=0, atol=1e-12)


def test_the_middle_plane_wave_is_the_exit_wave_of_atoms(slices):
    # Slices stand at equal heights here and at their atoms' mean height there.
    flat = POSITIONS * [1, 1, 0]
    at = [np.arange(4)]
    one = matrices.transmissions(NUMBERS, flat, HOW, at, dtype=torch.complex128)
    options = {"semiangle": 1e-4, "spacing": 2.0, "largest": LARGEST}
    [found] = matrices.scattering_matrix(one, HOW, **options)
    how = Multislice(ENERGY, STEP, HOW.shape, beyond=2.0)
    wave = simulate(NUMBERS, flat, how, dtype=torch.complex128)
    spectrum = torch.fft.fft2(wave) / wave.numel()
    half = found.waves.shape[1] // 2
    assert len(found.waves) == 1
    torch.testing.assert_close(found.waves[0, : half + 1, 0], spectrum[: half + 1, 0], rtol=0, atol=1e-10)


def test_atoms_are_where_they_are(slices):
    # The phase of slice 0 is highest at the sulphur atom at x = 5.9, y = 2.2, far from its mirror images.
    phase = slices[0].angle()
    y, x = divmod(int(phase.argmax()), HOW.shape[1])
    # Molybdenum at (3.1, 4.0) scatters more than sulphur.
    assert (y * STEP[0], x * STEP[1]) == pytest.approx((4.0, 3.1), abs=0.21)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([1, 3, 5]), st.integers(15, 24), st.floats(-1, 1), st.floats(-1, 1))
def test_a_detector_has_its_middle_where_the_beam_is(factor, side, down, across):
    # What grows evenly has in a pixel of an odd number of smaller ones what its middle has, times its area.
    k = torch.fft.fftfreq(side, 1 / side, dtype=torch.float64)
    found = matrices.detected(
        1 + down * k[:, None] + across * k, (10.0, 10.0), energy=ENERGY,
        pixel=factor * optics.wavelength(ENERGY) / 10, count=3,
    )  # fmt: skip
    at = torch.fft.fftfreq(3, 1 / (3 * factor), dtype=torch.float64)
    torch.testing.assert_close(found, factor**2 * (1 + down * at[:, None] + across * at))


@settings(max_examples=40, deadline=None)
@given(st.floats(2.0, 5.0), st.integers(-5, 5), st.integers(-5, 5))
def test_a_detector_counts_every_electron_once(ratio, row, column):
    patterns = torch.zeros(41, 40, dtype=torch.float64)
    patterns[row, column] = 1
    size = (20.0, 18.0)
    pixel = ratio * optics.wavelength(ENERGY) / size[1]
    found = matrices.detected(patterns, size, energy=ENERGY, pixel=pixel, count=7)
    assert float(found.sum()) == pytest.approx(1, abs=1e-12)
    # And near where it was: the middle of its pixel is at most half of both pixels away.
    for axis, (index, length) in enumerate(((row, size[0]), (column, size[1]))):
        at = torch.fft.fftfreq(7, 1 / 7, dtype=torch.float64) * pixel
        mean = float((found.sum(1 - axis) * at).sum())
        step = optics.wavelength(ENERGY) / length
        assert abs(mean - index * step) <= (pixel + step) / 2


def test_layers_hold_every_atom_once():
    found = matrices.layers(NUMBERS, POSITIONS, 9.0, SPACING)
    assert [each.tolist() for each in found] == [[0, 1], [2], [3]]


def test_electrons_scattered_beyond_the_band_are_all_that_is_lost(slices):
    options = {
        "semiangle": ANGLE,
        "spacing": SPACING,
        "largest": WIDE,
    }
    [found] = matrices.scattering_matrix(slices[1:2], HOW, **options)
    total = matrices.patterns(found, torch.tensor([[2.3, 5.8]]).double()).sum()
    # Over the sulphur atom; the square detector takes in all of the round band.
    probe = scanning.probe(HOW.shape, STEP, energy=ENERGY, semiangle=ANGLE, dtype=torch.complex128)
    there = scanning.patterns(slices[1:2], probe, torch.tensor([[2.3, 5.8]]).double(), STEP)[0]
    assert float(total) == pytest.approx(float((there * band_limit(HOW)).sum()), abs=1e-10)
    assert 0.9 < float(total) < 1


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda s: matrices.layers(NUMBERS, POSITIONS, 5.0, SPACING), "in a specimen from 0 to 5 Å"),
        (lambda s: matrices.layers(NUMBERS, POSITIONS, 5.0, 0.0), "slices of 0 Å"),
        (lambda s: matrices.layers(NUMBERS[:2], POSITIONS, 9.0, 1.0), "2 atomic numbers for 4 positions"),
        (
            lambda s: matrices.scattering_matrix(s, HOW, semiangle=ANGLE, spacing=3.0, largest=0.5),
            "a detector to 500 mrad",
        ),
        (
            lambda s: matrices.scattering_matrix(
                s, HOW, semiangle=ANGLE, spacing=3.0, largest=0.02, exits=[0, 2]
            ),
            r"exits after \[0, 2\] slices",
        ),
        (
            lambda s: matrices.detected(torch.ones(9, 9), (10.0, 10.0), energy=ENERGY, pixel=0.01, count=9),
            "a detector to 45 mrad on patterns to 18.79 mrad",
        ),
        (
            lambda s: matrices.detected(torch.ones(9, 9), (10.0, 10.0), energy=ENERGY, pixel=0.0, count=9),
            "9 pixels of 0 mrad",
        ),
    ],
)
def test_bad_input_is_named(slices, call, named):
    with pytest.raises(InputError, match=named):
        call(slices)


def test_positions_are_pairs(matrix):
    with pytest.raises(InputError, match=r"positions of shape \(3,\)"):
        matrices.patterns(matrix[0], torch.ones(3))


def test_single_precision_is_enough(slices, matrix):
    options = {"semiangle": ANGLE, "spacing": SPACING, "largest": LARGEST, "exits": [5]}
    [single] = matrices.scattering_matrix(slices.to(torch.complex64), HOW, **options)
    where = torch.tensor([[1.3, 2.9], [4.1, 5.07]], dtype=torch.float64)
    one, two = (matrices.patterns(each, where, LENS) for each in (single, matrix[2]))
    assert one.dtype == torch.float32
    # Some ten transforms of float32, each of which rounds by a few 1e-7 of the largest value.
    assert float((one - two).abs().max() / two.max()) < 3e-5
