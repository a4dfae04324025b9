"""Exit waves: analytic potentials, conservation, gradients, symmetries, sampling, and what is refused."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import k0

from exitwave import metrics
from exitwave.errors import InputError
from exitwave.optics import interaction_constant, propagator
from exitwave.optics.scattering import _table
from exitwave.simulate import exit_waves
from exitwave.simulate.exit_waves import Multislice, simulate, slices_of

SMALL = Multislice(shape=(96, 128), sampling=0.1)
# Molybdenum, sulphur and carbon, none at the height of another, none on a pixel.
NUMBERS = [42, 16, 16, 6, 6]
PLACES = np.array(
    [[5.03, 4.11, 1.0], [6.42, 4.9, 2.56], [6.42, 4.9, -0.56], [3.3, 6.27, 5.0], [8.1, 2.2, 4.9]]
)


def exact(how=SMALL, places=PLACES, numbers=NUMBERS):
    return simulate(numbers, places, how, dtype=torch.complex128)


@pytest.mark.parametrize("number", [6, 16, 42])
def test_projected_potential_is_that_of_kirkland(number):
    how = Multislice(shape=(512, 512), sampling=0.02)
    found = exit_waves.projected_potential(np.array([number]), torch.tensor([[5.12, 5.12]]).double(), how)
    row = _table("kirkland")["kirkland"][number - 1]
    lorentzians, gaussians = (zip(row[i : i + 3], row[i + 3 : i + 6], strict=True) for i in (0, 6))
    terms = (
        [(2 * math.pi * a, math.sqrt(b)) for a, b in lorentzians],
        [(math.pi * c / d, d) for c, d in gaussians],
    )
    for pixels in (10, 25, 50):
        r = 0.02 * pixels
        # Kirkland 2010, Eqs. C.19 and C.20: the transform of a / (q² + b) is 2πa K0(2πr√b).
        expected = sum(a * k0(2 * math.pi * r * root) for a, root in terms[0])
        expected += sum(c * math.exp(-((math.pi * r) ** 2) / d) for c, d in terms[1])
        expected *= exit_waves.POTENTIAL
        for line in (found[256, 256 + pixels], found[256 + pixels, 256]):
            assert float(line) == pytest.approx(expected, rel=0.02, abs=0.02 * exit_waves.POTENTIAL)


def test_a_thin_object_turns_the_phase_by_the_projected_potential():
    how = Multislice(shape=(128, 128), sampling=0.1, displacement=0.02, beyond=0.0)
    wave = simulate([6], [[6.4, 6.4, 0.0]], how, dtype=torch.complex128)
    potential = exit_waves.projected_potential(np.array([6]), torch.tensor([[6.4, 6.4]]).double(), how)
    # All but what the band limit takes at the nucleus.
    assert (wave.angle() - interaction_constant(50e3) * potential).abs().max() < 0.02 * float(
        wave.angle().max()
    )
    assert float(wave.angle().max()) > 0  # an atom attracts: the wave runs ahead


@given(tilt=st.floats(-0.2, 0.2), displacement=st.floats(0, 0.01), thickness=st.sampled_from([0.0, 0.2, 2.0]))
@settings(max_examples=10, deadline=None)
def test_no_electron_is_gained_and_few_are_lost_to_the_band_limit(tilt, displacement, thickness):
    places = PLACES + np.outer(PLACES[:, 0] - 6, [0, 0, math.tan(tilt)])
    how = Multislice(shape=(96, 128), sampling=0.1, displacement=displacement, thickness=thickness)
    flux = float(exact(how, places).abs().square().mean())
    assert 1 - 5e-3 < flux < 1 + 1e-9


def test_gradients_are_those_of_finite_differences():
    how = Multislice(shape=(32, 40), sampling=0.25, displacement=0.01, thickness=0.0)
    target = simulate(NUMBERS, PLACES + 0.05, how, dtype=torch.complex128)

    def loss(places):
        return (simulate(NUMBERS, places, how, dtype=torch.complex128) - target).abs().square().sum()

    places = torch.tensor(PLACES, requires_grad=True)
    loss(places).backward()
    for atom, axis in ((0, 0), (1, 1), (3, 0)):
        step = torch.zeros_like(places)
        step[atom, axis] = 1e-5
        expected = (loss(places.detach() + step) - loss(places.detach() - step)) / 2e-5
        assert float(places.grad[atom, axis]) == pytest.approx(float(expected), rel=1e-5)


def test_x_is_the_last_axis_and_moving_the_atoms_moves_the_wave():
    wave = exact()
    row, column = divmod(int((wave - 1).abs().argmax()), 128)
    assert math.hypot(row * 0.1 - 4.9, column * 0.1 - 6.42) < 0.1  # both sulphur atoms
    moved = exact(places=PLACES + [0.9, -0.4, 0.0])
    assert torch.allclose(torch.roll(wave, (-4, 9), (0, 1)), moved, atol=1e-9)


def test_the_beam_meets_low_z_first():
    """Turning the object over gives another wave, which a propagation of the wrong sign would not undo."""
    over = PLACES * [1, 1, -1]
    wave, turned = exact(), exact(places=over)
    assert float(metrics.relative_wave_error(turned, wave)) > 0.01
    # The wave behind the last atom is that in its plane, propagated on.
    near, far = (
        exact(Multislice(shape=SMALL.shape, sampling=0.1, beyond=distance)) for distance in (0.0, 7.0)
    )
    spread = propagator(SMALL.shape, 0.1, 7.0, 50e3, dtype=torch.complex128)
    assert torch.allclose(torch.fft.ifft2(torch.fft.fft2(near) * spread), far, atol=1e-9)


def test_the_wave_does_not_depend_on_the_sampling():
    """Up to half of the band limit of the coarser grid, to 1e-3 of the signal (Eq. A.1)."""
    spectra = []
    for sampling, shape in ((0.1, (96, 128)), (0.05, (192, 256))):
        how = Multislice(shape=shape, sampling=sampling, displacement=0.003)
        spectrum = torch.fft.fftshift(torch.fft.fft2(exact(how))) / math.prod(shape)
        middle = (shape[0] // 2, shape[1] // 2)
        spectra.append(spectrum[middle[0] - 16 : middle[0] + 16, middle[1] - 21 : middle[1] + 21])
    scattered = spectra[1].abs().square().sum() - spectra[1][16, 21].abs().square()
    assert (spectra[0] - spectra[1]).abs().square().sum() < 1e-3 * scattered


def test_single_precision_is_enough():
    single = simulate(NUMBERS, PLACES, SMALL)
    assert single.dtype == torch.complex64
    assert float(metrics.relative_wave_error(single.to(torch.complex128), exact())) < 1e-8


def test_thinner_slices_change_less():
    """Fig. S2: Eq. A.1 falls with the thickness, and every thickness is as good as its distances."""
    places = PLACES + np.outer(PLACES[:, 0], [0, 0, 0.17])
    reference = exact(Multislice(shape=SMALL.shape, sampling=0.1, thickness=0.0), places)
    errors = [
        float(
            metrics.relative_wave_error(
                exact(Multislice(shape=SMALL.shape, sampling=0.1, thickness=t), places), reference
            )
        )
        for t in (0.01, 0.5, 2.0, 8.0)
    ]
    assert errors[0] < 1e-10
    assert errors == sorted(errors)
    assert errors[-1] > 1e-3


@given(
    heights=st.lists(st.floats(-20, 20), min_size=1, max_size=30),
    thickness=st.sampled_from([0.0, 0.2, 1.0, 5.0]),
)
@settings(max_examples=60, deadline=None)
def test_slices_hold_atoms_that_are_near(heights, thickness):
    z = torch.tensor(heights, dtype=torch.float64)
    index, planes = slices_of(z, thickness)
    assert (index.bincount(minlength=len(planes)) > 0).all()  # none is empty
    assert (planes.diff() > 0).all()
    assert float((planes[index] - z).abs().max()) <= thickness + 1e-6
    for i in range(len(planes)):
        inside = z[index == i]
        assert float(inside.max() - inside.min()) <= thickness + 1e-6


def test_without_atoms_there_is_the_plane_wave():
    assert torch.equal(simulate([], np.zeros((0, 3)), SMALL), torch.ones(96, 128, dtype=torch.complex64))


def test_smearing_keeps_the_mean_and_lowers_the_peak():
    wave = exact()
    soft = exit_waves.smeared(wave, 0.1, 0.15)
    assert complex(soft.mean()) == pytest.approx(complex(wave.mean()), abs=1e-12)
    assert (soft - 1).abs().max() < 0.9 * (wave - 1).abs().max()
    # A Gaussian of twice the variance is the same twice.
    twice = exit_waves.smeared(soft, 0.1, 0.15)
    assert torch.allclose(twice, exit_waves.smeared(wave, 0.1, 0.15 * math.sqrt(2)), atol=1e-12)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: Multislice(energy=0), "beam energy"),
        (lambda: Multislice(sampling=-0.1), "-0.1"),
        (lambda: Multislice(thickness=-1), "thickness -1"),
        (lambda: Multislice(displacement=math.nan), "displacement nan"),
        (lambda: Multislice(shape=(1, 5)), "give two numbers"),
        (lambda: simulate([6, 6], [[0, 0, 0]], SMALL), "give .n,. and .n, 3."),
        (lambda: simulate([6], [[0, math.inf, 0]], SMALL), "not all finite"),
        (lambda: simulate([0], [[0, 0, 0]], SMALL), "atomic number 0"),
        (lambda: simulate([6], [[0, 0, 0]], Multislice(shape=(8, 8), table="peng")), "'peng'"),
    ],
)
def test_bad_input_is_named_in_one_line(call, named):
    with pytest.raises(InputError, match=named) as told:
        call()
    assert "\n" not in str(told.value)
