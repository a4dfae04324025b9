"""Transfer functions against abTEM, in double precision.

abTEM indexes (x, y) and takes the azimuth from its first axis, so its arrays are transposed. It has older
constants: the energy given to exitwave is the one of equal wavelength.
"""

import math

import numpy as np
import pytest
import torch

from exitwave import optics

abtem = pytest.importorskip("abtem")
from abtem.core.energy import energy2sigma, energy2wavelength  # noqa: E402
from abtem.multislice import FresnelPropagator  # noqa: E402
from abtem.transfer import cartesian2polar, polar2cartesian  # noqa: E402

pytestmark = pytest.mark.oracle

ENERGY = 200e3
GRIDS = [((48, 48), (0.25, 0.25)), ((40, 56), (0.3, 0.2))]
HC = optics.PLANCK * optics.SPEED_OF_LIGHT / optics.ELEMENTARY_CHARGE * 1e10

# Magnitudes in Å, each some tens of rad at the edge of the grid, and azimuths in rad.
TERMS = {
    "C10": -900.0,
    "C12": 400.0,
    "C21": 9e3,
    "C23": 8e3,
    "C30": 4e5,
    "C32": 2e5,
    "C34": 1.5e5,
    "C41": 4e6,
    "C43": 3e6,
    "C45": 3.5e6,
    "C50": 8e7,
    "C52": 7e7,
    "C54": 6e7,
    "C56": 5e7,
}
AZIMUTHS = {
    "phi" + name[1:]: angle
    for name, angle in zip([n for n in TERMS if n[2] != "0"], np.linspace(-1.3, 1.1, 11), strict=True)
}


@pytest.fixture(autouse=True)
def _double_precision():
    with abtem.config.set({"precision": "float64"}):
        yield


def energy_of_equal_wavelength(energy):
    rest = optics.REST_ENERGY
    return math.hypot(rest, HC / energy2wavelength(energy)) - rest


def abtem_kernel(shape, sampling, **parameters):
    ctf = abtem.CTF(energy=ENERGY, gpts=shape[::-1], sampling=sampling[::-1], **parameters)
    return np.swapaxes(np.asarray(ctf._evaluate_kernel()), -1, -2)


def ours(shape, sampling, coefficients, **parameters):
    return optics.transfer_function(
        shape,
        sampling,
        energy=energy_of_equal_wavelength(ENERGY),
        aberrations=optics.Aberrations(**coefficients),
        dtype=torch.complex128,
        **parameters,
    ).numpy()


def single(name):
    return {key: value for key, value in (TERMS | AZIMUTHS).items() if key[-2:] == name[-2:]}


@pytest.mark.parametrize(("shape", "sampling"), GRIDS)
@pytest.mark.parametrize("name", TERMS)
def test_each_aberration(name, shape, sampling):
    expected = abtem_kernel(shape, sampling, **single(name))
    assert np.ptp(np.angle(expected)) > 6  # the term is seen
    np.testing.assert_allclose(ours(shape, sampling, single(name)), expected, atol=1e-6)


@pytest.mark.parametrize(("shape", "sampling"), GRIDS)
def test_all_aberrations_at_once(shape, sampling):
    mixed = TERMS | AZIMUTHS
    np.testing.assert_allclose(
        ours(shape, sampling, mixed), abtem_kernel(shape, sampling, **mixed), atol=1e-6
    )


def test_defocus_is_positive_underfocus():
    shape, sampling = GRIDS[1]
    expected = abtem_kernel(shape, sampling, defocus=700.0)
    got = optics.transfer_function(
        shape,
        sampling,
        energy=energy_of_equal_wavelength(ENERGY),
        aberrations=optics.Aberrations.from_defocus(700.0),
        dtype=torch.complex128,
    )
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(("shape", "sampling"), GRIDS)
@pytest.mark.parametrize(("focal", "angular"), [(5.0, 0.0), (0.0, 8e-5), (4.0, 5e-5)])
def test_envelopes(focal, angular, shape, sampling):
    """AbTEM's widths are 1/e half widths: √2 of ours, for both spreads."""
    coefficients = {
        key: 0.2 * value if key.startswith("C") else value for key, value in (TERMS | AZIMUTHS).items()
    }
    expected = abtem_kernel(
        shape,
        sampling,
        **coefficients,
        focal_spread=math.sqrt(2) * focal,
        angular_spread=1e3 * math.sqrt(2) * angular,
    )
    got = ours(shape, sampling, coefficients, focal_spread=focal, angular_spread=angular)
    assert abs(expected).min() < 0.3 < 0.5 < np.median(abs(expected)) < 0.999
    np.testing.assert_allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize(("shape", "sampling"), GRIDS)
@pytest.mark.parametrize(("soft", "edge"), [(True, "pixel"), (False, 0)])
def test_aperture(soft, edge, shape, sampling):
    expected = abtem_kernel(shape, sampling, semiangle_cutoff=21.3, soft=soft)
    got = optics.aperture(
        shape,
        sampling,
        energy=energy_of_equal_wavelength(ENERGY),
        semiangle=21.3e-3,
        edge=edge,
        dtype=torch.float64,
    )
    assert soft == bool(((expected.real > 0) & (expected.real < 1)).any())
    np.testing.assert_allclose(got.numpy(), expected.real, atol=1e-6)


def test_propagator():
    """AbTEM's propagator, where its antialiasing aperture is open."""
    shape, sampling, distance = (40, 56), (0.3, 0.2), 35.0
    waves = abtem.Waves(np.ones(shape[::-1], complex), energy=ENERGY, sampling=sampling[::-1])
    expected = FresnelPropagator().get_array(waves, distance).T
    energy = energy_of_equal_wavelength(ENERGY)
    got = optics.propagator(shape, sampling, distance, energy, dtype=torch.complex128).numpy()
    opened = abs(expected) > 0.999
    assert opened.mean() > 0.2
    np.testing.assert_allclose(got[opened], expected[opened] / abs(expected[opened]), atol=1e-6)


def test_beam_constants():
    for energy in (50e3, 80e3, 200e3, 300e3):
        assert optics.wavelength(energy) == pytest.approx(energy2wavelength(energy), rel=1e-7)
        assert optics.interaction_constant(energy) == pytest.approx(energy2sigma(energy), rel=1e-7)


def from_abtem(cartesian):
    """Return our Cartesian coefficients from abTEM's (the table in Aberrations.from_cartesian)."""
    c = cartesian
    return {
        "C10": c["C10"],
        "C12a": -c["C12a"],
        "C12b": c["C12b"],
        "C21a": c["C21b"],
        "C21b": c["C21a"],
        "C23a": c["C23b"],
        "C23b": -c["C23a"],
        "C30": c["C30"],
        "C32a": -c["C32a"],
        "C32b": c["C32b"],
        "C34a": c["C34a"],
        "C34b": c["C34b"],
    }


def test_cartesian_coefficients():
    polar = {key: value for key, value in (TERMS | AZIMUTHS).items() if int(key[-2]) <= 3}
    expected = from_abtem(polar2cartesian(polar))
    got = optics.Aberrations(**polar).to_cartesian()
    assert {k: got[k] for k in expected} == pytest.approx(expected, rel=1e-12)


def test_polar_coefficients_mean_the_same():
    """AbTEM returns negative magnitudes of C12 and C32; the transfer function is the same."""
    rng = np.random.default_rng(1)
    names = [n for n in polar2cartesian({}) if n not in ("C10", "C30")]
    cartesian = {n: rng.uniform(-1, 1) * 10.0 ** (1.5 * int(n[1])) for n in names} | {"C10": 50.0, "C30": 1e5}
    polar = cartesian2polar(cartesian)
    assert polar["C12"] < 0
    assert polar["C32"] < 0
    shape, sampling = GRIDS[1]
    mine = optics.Aberrations.from_cartesian(**from_abtem(cartesian))
    assert mine.C12 > 0
    got = optics.transfer_function(
        shape, sampling, energy=energy_of_equal_wavelength(ENERGY), aberrations=mine, dtype=torch.complex128
    )
    np.testing.assert_allclose(got.numpy(), abtem_kernel(shape, sampling, **polar), atol=1e-6)
