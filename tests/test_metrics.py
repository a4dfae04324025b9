"""Metrics: analytic values, invariances and failures."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from exitwave import metrics
from exitwave.errors import InputError

SHAPE = (24, 33)


def images(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape or SHAPE)


def waves(seed, *shape):
    real, imaginary = images(seed, 2, *(shape or SHAPE))
    return real + 1j * imaginary


def band_limited(seed, shape, sampling, highest):
    """Return noise without frequencies above `highest`, 1/Å."""
    q = np.hypot(
        *np.meshgrid(*(np.fft.fftfreq(n, d) for n, d in zip(shape, sampling, strict=True)), indexing="ij")
    )
    return np.fft.ifft2(np.fft.fft2(images(seed, *shape)) * (q <= highest)).real


PAIRED = [
    metrics.align_phase,
    metrics.wave_rmse,
    metrics.relative_wave_error,
    metrics.phase_rmse,
    metrics.gradient_rmse,
    metrics.correlation,
    metrics.absolute_correlation,
    metrics.correlation_index,
]


# --- what all of them share ---


@pytest.mark.parametrize("metric", PAIRED)
def test_what_comes_in_decides_what_goes_out(metric):
    a, b = images(0, 2, 3, 8, 9), images(1, 8, 9)
    numbers = metric(a, b)
    assert isinstance(numbers, np.ndarray)
    np.testing.assert_allclose(metric(torch.from_numpy(a), torch.from_numpy(b)).numpy(), numbers)
    np.testing.assert_allclose(metric(torch.from_numpy(a), b).numpy(), numbers)
    for index in np.ndindex(2, 3):
        np.testing.assert_allclose(metric(a[index], b), numbers[index], rtol=1e-12)
    if metric is not metrics.align_phase:
        assert numbers.shape == (2, 3)
        assert isinstance(metric(a[0, 0], b), float)
        single = metric(torch.from_numpy(a).float(), torch.from_numpy(b).float())
        assert single.dtype == torch.float32
        np.testing.assert_allclose(single.numpy(), numbers, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("metric", PAIRED)
def test_metrics_have_gradients(metric):
    a, b = (torch.from_numpy(images(seed, 4, 5)).requires_grad_() for seed in (0, 1))
    assert torch.autograd.gradcheck(metric, (a, b))
    if metric in PAIRED[:3]:
        a, b = (torch.from_numpy(waves(seed, 4, 5)).requires_grad_() for seed in (0, 1))
        assert torch.autograd.gradcheck(metric, (a, b))


@pytest.mark.parametrize("metric", [*PAIRED, lambda a, b: metrics.fourier_ring_correlation(a, b, 1.0)])
def test_bad_images_are_refused(metric):
    good, bad = images(0), images(0)
    bad[3, 4] = np.nan
    for arguments, words in [
        ((bad, good), "not finite"),
        ((good, torch.from_numpy(bad)), "not finite"),
        ((good, good[:-1]), "do not match"),
        ((np.stack([good] * 2), np.stack([good] * 3)), "do not match"),
        ((good[0], good[0]), "give images"),
        ((np.array([["a"]]), good), "not numbers"),
    ]:
        with pytest.raises(InputError, match=words) as caught:
            metric(*arguments)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("metric", PAIRED[3:])
def test_complex_images_are_refused_where_reals_are_compared(metric):
    with pytest.raises(InputError, match="complex"):
        metric(waves(0), waves(1))


def test_integers_and_foreign_byte_order_are_taken():
    counts = np.random.default_rng(0).integers(0, 50, (8, 8)).astype(np.uint16)
    assert metrics.correlation(counts, counts.astype(">f4")) == pytest.approx(1.0)


# --- waves and phases ---


@settings(max_examples=30, deadline=None)
@given(st.floats(-10, 10), st.floats(0.1, 3.0))
def test_a_global_phase_is_no_error(angle, amplitude):
    wave = waves(0)
    turned = amplitude * wave * np.exp(1j * angle)
    np.testing.assert_allclose(metrics.align_phase(turned, wave), amplitude * wave, atol=1e-12)
    expected = abs(amplitude - 1) * np.sqrt(np.mean(abs(wave) ** 2))
    assert metrics.wave_rmse(turned, wave) == pytest.approx(expected, abs=1e-12)


def test_the_aligned_phase_is_the_best():
    wave, reference = waves(0), waves(1)
    best = metrics.wave_rmse(wave, reference)
    others = [
        metrics.wave_rmse(wave * np.exp(1j * t), reference, aligned=False)
        for t in np.linspace(0, 2 * np.pi, 500)
    ]
    assert best == pytest.approx(min(others), rel=1e-4)
    assert best <= min(others) < metrics.wave_rmse(wave, reference, aligned=False)


def test_waves_without_overlap_are_left_alone():
    wave = np.array([[1.0 + 1j, 0.0]])
    assert np.array_equal(metrics.align_phase(wave, np.array([[0.0, 1j]])), wave)


def test_relative_wave_error_is_equation_a1():
    reference = 1 + 0.1 * waves(0)
    wave = reference + 0.03 * waves(1)
    expected = np.sum(abs(wave - reference) ** 2) / np.sum(abs(reference - 1) ** 2)
    assert metrics.relative_wave_error(wave, reference) == pytest.approx(expected)
    vacuum = np.ones((24, 100), complex)
    padded = [np.concatenate([w, vacuum], axis=1) for w in (wave, reference)]
    assert metrics.relative_wave_error(*padded) == pytest.approx(expected)  # vacuum does not dilute it
    turned = reference * np.exp(0.2j)
    assert metrics.relative_wave_error(turned, reference) > 0.5
    assert metrics.relative_wave_error(turned, reference, aligned=True) == pytest.approx(0, abs=1e-12)
    with pytest.raises(InputError, match="1 everywhere"):
        metrics.relative_wave_error(wave, np.ones(SHAPE))


def test_phase_errors_of_known_fields():
    y, x = np.mgrid[:64, :80].astype(float)
    reference = 0.05 * x
    wave = 0.3 * np.sin(2 * np.pi * 4 * y / 64)
    assert metrics.phase_rmse(reference + wave + 5, reference) == pytest.approx(0.3 / math.sqrt(2))
    # Central differences multiply the slope of a sine by sin(h)/h; an offset is no error, a ramp is one.
    assert metrics.gradient_rmse(reference + 5, reference) == pytest.approx(0, abs=1e-12)
    assert metrics.gradient_rmse(1.25 * reference, reference) == pytest.approx(0.25)
    ramp = 0.05 * y
    assert metrics.gradient_rmse(reference + ramp, reference) == pytest.approx(1.0)
    assert metrics.gradient_rmse(reference + ramp, reference, (4.0, 2.0)) == pytest.approx(0.5)
    with pytest.raises(InputError, match="flat"):
        metrics.gradient_rmse(reference, np.ones_like(reference))
    with pytest.raises(InputError, match="pixel size"):
        metrics.gradient_rmse(ramp, reference, -1.0)
    with pytest.raises(InputError, match="too small"):
        metrics.gradient_rmse(np.ones((1, 5)), np.ones((1, 5)))


# --- correlations ---


@settings(max_examples=30, deadline=None)
@given(st.floats(0.01, 100), st.floats(-100, 100))
def test_correlation_is_blind_to_scale_and_offset_only(scale, offset):
    image = images(0)
    assert metrics.correlation(scale * image + offset, image) == pytest.approx(1)
    assert metrics.correlation(-scale * image + offset, image) == pytest.approx(-1)
    assert metrics.correlation_index(-scale * image + offset, image) == pytest.approx(0, abs=1e-9)


def test_correlation_is_that_of_numpy():
    a, b = images(0), images(0) + images(1)
    expected = np.corrcoef(a.ravel(), b.ravel())[0, 1]
    assert metrics.correlation(a, b) == pytest.approx(expected)
    assert metrics.correlation_index(a, b) == pytest.approx(0.5 + 0.5 * expected)
    equation_4 = 0.5 + np.mean((a - a.mean()) / a.std() * (b - b.mean()) / b.std()) / 2
    assert metrics.correlation_index(a, b) == pytest.approx(equation_4)


def test_a_constant_image_has_no_correlation():
    for value in (0.0, 0.1, 1 / 3):  # whose mean is not exact
        constant = np.full((31, 31), value, np.float32)
        assert metrics.correlation(constant, images(0, 31, 31)) == 0
        assert metrics.correlation_index(images(0, 31, 31), constant) == 0.5


def test_absolute_correlation_sees_neither_sign_nor_mean():
    a, b = abs(images(0)) + 1, images(1)
    assert metrics.absolute_correlation(a, -a) == pytest.approx(1)
    assert metrics.absolute_correlation(a, np.ones(SHAPE)) > 0.8
    expected = np.sum(abs(a * b)) / math.sqrt(np.sum(a * a) * np.sum(b * b))
    assert metrics.absolute_correlation(a, b) == pytest.approx(expected)
    assert metrics.absolute_correlation(a, np.zeros(SHAPE)) == 0


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(np.float64, (2, 4, 5), elements=st.floats(-1e3, 1e3).map(lambda v: round(v, 3))), st.randoms()
)
def test_bounds_and_symmetry(pair, random):
    a, b = pair
    for metric, low in [
        (metrics.correlation, -1),
        (metrics.absolute_correlation, 0),
        (metrics.correlation_index, 0),
    ]:
        score = metric(a, b)
        assert low - 1e-9 <= score <= 1 + 1e-9
        assert score == pytest.approx(metric(b, a), abs=1e-12)
        order = list(range(20))
        random.shuffle(order)  # pixels have no place
        shuffled = [v.ravel()[order].reshape(4, 5) for v in (a, b)]
        assert score == pytest.approx(metric(*shuffled), abs=1e-9)


# --- resolution ---


def test_rings_have_the_right_frequencies():
    """One plane wave in a rectangular image of oblong pixels shows in the ring of its frequency."""
    shape, sampling = (60, 40), (0.2, 0.5)
    for ky, kx in [(3, 0), (0, 5), (4, 4), (8, 3)]:
        spectrum = np.zeros(shape)
        spectrum[ky, kx] = 1.0
        wave = np.fft.ifft2(spectrum)
        frequency, frc = metrics.fourier_ring_correlation(wave, wave, sampling)
        q = math.hypot(ky / (shape[0] * sampling[0]), kx / (shape[1] * sampling[1]))
        assert sorted(frc)[-2:] == pytest.approx([0, 1])  # elsewhere there is but rounding
        assert abs(frequency[frc.argmax()] - q) < 0.5 / (shape[0] * sampling[0])
    assert frequency[-1] < 0.5 / 0.5
    assert len(frequency) == len(metrics.ring_counts(shape, sampling))


def test_rings_share_out_the_frequencies_below_nyquist():
    for shape in [(16, 16), (15, 17), (32, 20)]:
        q = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n) for n in shape), indexing="ij"))
        for bins in (None, 3):
            counts = metrics.ring_counts(shape, 1.0, bins)
            assert counts.min() > 0
            assert counts.sum() == np.sum((q > 0) & (q <= 0.5))
    for sampling in (1.0, 0.27, 0.37, 1.35):  # the borders of rings two wide lie on the lattice
        assert metrics.ring_counts((16, 16), sampling, 4).tolist() == [12, 36, 64, 82]


def test_ring_correlation_of_equal_negative_and_unrelated_images():
    a, b = images(0, 3, 64, 48), images(1, 3, 64, 48)
    for one in (a, a + 1j * b):
        frequency, frc = metrics.fourier_ring_correlation(one, one + 7.0, (0.5, 0.4))
        assert frc.shape == (3, len(frequency))
        np.testing.assert_allclose(frc, 1)
        np.testing.assert_allclose(metrics.fourier_ring_correlation(one, -one, 0.5)[1], -1)
    _, unrelated = metrics.fourier_ring_correlation(a, b, 0.5)
    assert abs(unrelated[:, 5:]).max() < 0.35
    assert metrics.fourier_ring_correlation(a[0], np.zeros((64, 48)), 0.5)[1].tolist() == [0.0] * 23


def test_ring_correlation_of_signal_in_noise():
    """Two images of equal signal and independent noise correlate as S/(S + N)."""
    signal = images(0, 256, 256)
    a, b = (signal + 0.7 * images(seed, 256, 256) for seed in (1, 2))
    _, frc = metrics.fourier_ring_correlation(a, b, 1.0, bins=8)
    np.testing.assert_allclose(frc, 1 / (1 + 0.49), atol=0.05)


@pytest.mark.parametrize("threshold", ["1/7", "half-bit", 0.5])
def test_resolution_of_a_band_limited_image(threshold):
    shape, sampling, highest = (128, 96), (0.5, 0.6), 0.4
    signal = band_limited(0, shape, sampling, highest)
    a, b = (signal + 0.02 * images(seed, *shape) for seed in (1, 2))
    curve = metrics.fourier_ring_correlation(a, b, sampling)
    found = metrics.resolution(*curve, threshold, counts=metrics.ring_counts(shape, sampling))
    assert found == pytest.approx(1 / highest, rel=0.06)


def test_resolution_interpolates_and_says_what_it_cannot():
    q = np.array([0.1, 0.2, 0.3, 0.4])
    assert metrics.resolution(q, np.array([1.0, 0.8, 0.4, 0.9]), 0.5) == pytest.approx(1 / 0.275)
    assert metrics.resolution(torch.tensor(q), torch.tensor([0.4, 1.0, 1.0, 1.0]), 0.5) == math.inf
    assert metrics.resolution(q, np.ones(4)) == pytest.approx(1 / 0.4)
    half_bit = (0.2071 + 1.9102 / 10) / (1.2071 + 0.9102 / 10)  # van Heel and Schatz, n = 100
    curve = np.array([1.0, half_bit + 0.01, half_bit - 0.03, 0.0])
    found = metrics.resolution(q, curve, "half-bit", counts=np.full(4, 100))
    assert found == pytest.approx(1 / 0.225)
    for arguments, words in [
        ((q, np.ones(3)), "not one curve"),
        ((q, np.full(4, np.nan)), "not finite"),
        ((q, np.ones(4), "half-bit"), "ring_counts"),
        ((q, np.ones(4), "3-sigma"), "3-sigma"),
    ]:
        with pytest.raises(InputError, match=words):
            metrics.resolution(*arguments)


def test_more_rings_than_frequencies_are_refused():
    with pytest.raises(InputError, match="empty"):
        metrics.fourier_ring_correlation(images(0), images(1), 1.0, bins=200)
    with pytest.raises(InputError, match="bins"):
        metrics.fourier_ring_correlation(images(0), images(1), 1.0, bins=0)


# --- edges ---


def edge(fwhm, sampling, n=61, centre=0.4, background=0.1, slope=0.02):
    x = np.arange(n) * sampling
    peak = np.exp(-4 * math.log(2) * ((x - centre * x[-1]) / fwhm) ** 2)
    return peak + background + slope * x / x[-1]


@settings(max_examples=30, deadline=None)
@given(
    st.floats(2.5, 20), st.floats(0.3, 0.7), st.floats(1e-6, 1e6), st.floats(-0.5, 0.5), st.floats(0.01, 100)
)
def test_edge_width_is_found_whatever_the_units(points, centre, height, slope, sampling):
    profile = height * edge(points * sampling, sampling, centre=centre, slope=slope)
    assert metrics.edge_fwhm(profile, sampling) == pytest.approx(points * sampling, rel=1e-3)


def test_edge_width_is_that_of_an_error_function_in_the_phase():
    x = (np.arange(80) - 33.3) * 0.5
    sigma = 2.0
    phase = np.array([math.erf(v / (sigma * math.sqrt(2))) for v in x])
    profile = torch.from_numpy(abs(np.gradient(phase, 0.5)))
    assert metrics.edge_fwhm(profile, 0.5) == pytest.approx(2.3548 * sigma, rel=0.02)


def test_edge_width_in_noise():
    rng = np.random.default_rng(0)
    found = [metrics.edge_fwhm(edge(8.0, 1.0) + 0.1 * rng.normal(size=61), 1.0) for _ in range(20)]
    assert np.median(found) == pytest.approx(8.0, rel=0.1)
    noise = [metrics.edge_fwhm(abs(rng.normal(size=61)), 1.0) for _ in range(20)]
    assert np.isnan(noise).sum() >= 19


def test_profiles_without_a_peak_give_nan():
    x = np.linspace(0, 1, 30)
    for profile in (np.zeros(30), np.full(30, 0.1), 2 + 3 * x, edge(300.0, 1.0), edge(8.0, 1.0, centre=-0.3)):
        assert math.isnan(metrics.edge_fwhm(profile, 1.0))
    step = np.zeros(30)
    step[15] = 1.0
    assert metrics.edge_fwhm(step, 0.5) == pytest.approx(0.5)  # no narrower than a pixel


@pytest.mark.parametrize(
    ("profile", "sampling"),
    [
        (np.ones(5), 1.0),
        (np.ones((8, 8)), 1.0),
        (np.full(9, np.inf), 1.0),
        (np.ones(9), 0.0),
        (np.ones(9) * 1j, 1.0),
    ],
)
def test_bad_profiles_are_refused(profile, sampling):
    with pytest.raises(InputError):
        metrics.edge_fwhm(profile, sampling)


# --- statistics ---


def test_bootstrap_is_the_interval_of_the_mean():
    rng = np.random.default_rng(0)
    values = rng.normal(0.5, 2.0, 400)
    mean, low, high = metrics.paired_bootstrap(values, seed=1)
    assert mean == pytest.approx(values.mean())
    half = 1.96 * values.std() / math.sqrt(400)
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=0.02)
    narrower = metrics.paired_bootstrap(values, seed=1, level=0.5)
    assert narrower.high - narrower.low == pytest.approx((high - low) * 0.6745 / 1.96, rel=0.05)


def test_bootstrap_covers_the_truth():
    rng = np.random.default_rng(3)
    intervals = [
        metrics.paired_bootstrap(rng.exponential(size=60), seed=i, n=400, level=0.8) for i in range(200)
    ]
    covered = np.mean([i.low <= 1.0 <= i.high for i in intervals])
    assert 0.7 < covered < 0.88


def test_bootstrap_repeats_by_its_seed():
    values = images(0, 50)
    assert metrics.paired_bootstrap(values, seed=2) == metrics.paired_bootstrap(values, seed=2)
    assert metrics.paired_bootstrap(values, seed=2) != metrics.paired_bootstrap(values, seed=3)
    generator = np.random.default_rng(2)
    assert metrics.paired_bootstrap(values, seed=generator) == metrics.paired_bootstrap(values, seed=2)


def test_bootstrap_of_many_differences_is_drawn_in_parts():
    values = images(0, 3000)
    mean, low, high = metrics.paired_bootstrap(values, seed=0, n=1000)
    assert low < mean < high
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / math.sqrt(3000), rel=0.1)


@pytest.mark.parametrize(
    ("values", "options"),
    [
        ([1.0], {}),
        ([[1.0, 2.0]], {}),
        ([1.0, np.nan], {}),
        ([1.0, 2.0], {"n": 0}),
        ([1.0, 2.0], {"level": 1.0}),
    ],
)
def test_bad_differences_are_refused(values, options):
    with pytest.raises(InputError):
        metrics.paired_bootstrap(values, seed=0, **options)
