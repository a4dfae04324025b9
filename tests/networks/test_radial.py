"""The linear model: round by construction, the same on any detector, and found again in closed form."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from exitwave.errors import InputError
from exitwave.networks.radial import RadialModel, fit, scan_clusters, standardise
from exitwave.networks.weights import load_network, save_weights
from exitwave.optics.aberrations import Aberrations
from exitwave.simulate import scanning

pytestmark = pytest.mark.usefixtures("one_thread")

# Sums of a few thousand float64 numbers near 1 in another order.
ROUNDING = 1e-10


def seeded(number):
    return torch.Generator().manual_seed(number)


def a_model(seed=0, **changed):
    """Return a model whose weights are all of any sign and size."""
    chosen = {"cluster": 3, "rings": 6, "outer": 2.0, "sampling": 0.2} | changed
    model = RadialModel(**chosen).double().requires_grad_(False)
    for each in model.parameters():
        each.normal_(generator=seeded(seed))
    return model


def random_patterns(*shape, seed=1):
    return torch.rand(shape, generator=seeded(seed), dtype=torch.float64) / (shape[-1] * shape[-2])


def turned(patterns, axes=(-2, -1)):
    """Rotate patterns in FFT order by 90° around zero frequency: (ky, kx) to (kx, -ky)."""
    one, two = axes
    return torch.roll(torch.flip(patterns.transpose(one, two), [one]), 1, one)


def product(model):
    return torch.outer(model.weights, model.ring_values()).detach()


class TestRound:
    @given(size=st.sampled_from([7, 8, 15, 16]), cluster=st.sampled_from([1, 3, 5]), seed=st.integers(0, 99))
    @settings(max_examples=15, deadline=None)
    def test_turning_by_90_degrees_changes_nothing(self, size, cluster, seed):
        model = a_model(seed, cluster=cluster)
        clusters = random_patterns(4, cluster, cluster, size, size, seed=seed)
        expected = model(clusters)
        # Patterns and cluster are each round for themselves.
        assert torch.allclose(model(turned(clusters)), expected, rtol=0, atol=ROUNDING)
        assert torch.allclose(model(clusters.rot90(1, (1, 2))), expected, rtol=0, atol=ROUNDING)
        assert torch.allclose(model(clusters.transpose(1, 2)), expected, rtol=0, atol=ROUNDING)
        # But a moved pattern is another one.
        assert not torch.allclose(model(torch.roll(clusters, 2, -1)), expected, rtol=0, atol=1e-4)

    def test_there_is_one_weight_for_each_distance(self):
        # 0, 1, √2, 2, √5, √8 in a cluster of 5.
        assert [len(RadialModel(cluster=n).weights) for n in (1, 3, 5)] == [1, 3, 6]
        model = a_model(cluster=5)
        assert torch.equal(model.kernel()[1], model.weights[[4, 2, 1, 2, 4]])

    def test_between_rings_the_mask_is_linear(self):
        model = a_model(rings=5, outer=2.0)  # a ring each 0.5 1/Å
        model.mask.copy_(3 - torch.arange(5) / 2)
        mask = model.detector((1, 40), 0.25)  # pixels of 0.1 1/Å
        k = torch.fft.fftfreq(40, 0.25, dtype=torch.float64).abs()
        # 3 - k to the last ring, then in half a 1/Å to 0.
        expected = torch.where(k <= 2, 3 - k, 0.0)
        assert torch.allclose(mask[0], expected, atol=ROUNDING)
        beyond = model.detector((1, 80), 0.125)[0]  # to 4 1/Å
        k = torch.fft.fftfreq(80, 0.125, dtype=torch.float64).abs()
        expected = torch.where(k <= 2, 3 - k, (1 - (k - 2) / 0.5).clamp_min(0))
        assert torch.allclose(beyond, expected, atol=ROUNDING)

    def test_features_say_how_much_and_how_far(self):
        """Hat functions sum to 1; weighted by their rings they give abs(k): linear functions are exact."""
        model = a_model(rings=8, outer=4.0)
        patterns = random_patterns(3, 12, 16)
        found = model.features(patterns)
        rings = torch.linspace(0, 4, 8, dtype=torch.float64)
        k = torch.hypot(
            torch.fft.fftfreq(12, 0.2, dtype=torch.float64)[:, None],
            torch.fft.fftfreq(16, 0.2, dtype=torch.float64),
        )
        assert k.max() < 4
        assert torch.allclose(found.sum(-1), patterns.sum((-2, -1)), atol=ROUNDING)
        assert torch.allclose(found @ rings, (patterns * k).sum((-2, -1)), atol=ROUNDING)

    def test_a_finer_detector_changes_little(self):
        """The same smooth pattern in four times as many pixels.

        The rule of the midpoint is wrong by h²/8 at a kink of the mask, per jump of its slope. Those of
        cos k at rings 0.5 1/Å apart are below 0.5, the density over abs(k) below 2 Å, kinks within the
        pattern 4: less than 0.125² / 8 · 0.5 · 2 · 4 = 0.008.
        """
        model = a_model(rings=5, outer=2.0, cluster=1)
        model.mask.copy_(torch.linspace(0, 2, 5).cos())
        model.weights.fill_(1.0)

        def pattern(size, sampling):
            k = torch.fft.fftfreq(size, sampling, dtype=torch.float64)
            made = torch.exp(-(k[:, None] ** 2 + k**2) / (2 * 0.5**2))
            return (made / made.sum())[None, None, None]

        coarse, fine = model(pattern(32, 0.25), 0.25), model(pattern(64, 0.25), 0.25)
        other = model(pattern(32, 0.2), 0.2)  # another largest angle
        assert float((coarse - fine).abs()) < 0.008
        assert float((coarse - other).abs()) < 0.008
        # A wrong sampling is seen.
        assert float((coarse - model(pattern(32, 0.25), 0.2)).abs()) > 0.05


class TestPhysics:
    def test_in_focus_no_round_mask_tells_the_sign_of_a_phase(self):
        """A real probe sees the conjugate of an object with all patterns turned by 180°.

        With defocus the probe is not real, and the sign shows.
        """
        model = a_model(rings=6, outer=1.2, sampling=0.4)
        phase = torch.randn(20, 20, generator=seeded(5), dtype=torch.float64)
        along = torch.arange(5, dtype=torch.float64) * 0.4
        positions = torch.cartesian_prod(along, along)
        for defocus, seen in ((0.0, False), (100.0, True)):
            beam = scanning.probe(
                (20, 20), 0.4, energy=80e3, semiangle=0.02, aberrations=Aberrations(C10=-defocus),
                dtype=torch.complex128,
            )  # fmt: skip
            one, two = (
                model.image(
                    scanning.patterns(torch.exp(1j * sign * phase)[None], beam, positions, 0.4).reshape(
                        5, 5, 20, 20
                    )
                )
                for sign in (1, -1)
            )
            assert torch.allclose(one, two, rtol=0, atol=ROUNDING) != seen
            if seen:
                assert float((one - two).abs().max()) > 1e-4


class TestForms:
    @pytest.mark.parametrize("cluster", [1, 3, 5])
    def test_all_are_the_naive_one(self, cluster):
        model = a_model(cluster=cluster)
        patterns = random_patterns(7, 9, 8, 10)
        mask, kernel, half = model.detector((8, 10)), model.kernel(), cluster // 2
        expected = torch.empty(7 - 2 * half, 9 - 2 * half, dtype=torch.float64)
        for y in range(half, 7 - half):
            for x in range(half, 9 - half):
                around = patterns[y - half : y + half + 1, x - half : x + half + 1]
                stacked = sum(
                    kernel[i, j] * around[i, j] for i in range(cluster) for j in range(cluster)
                )  # fmt: skip
                expected[y - half, x - half] = (stacked * mask).sum() + model.bias
        assert torch.allclose(model.image(patterns), expected, atol=ROUNDING)
        clusters = scan_clusters(patterns, cluster)
        one_by_one = model(clusters.flatten(0, 1)).reshape(expected.shape)
        assert torch.allclose(one_by_one, expected, atol=ROUNDING)
        sums = model.cluster_sums(model.features(patterns))
        from_sums = torch.einsum("yxdr,dr->yx", sums, product(model)) + model.bias
        assert torch.allclose(from_sums, expected, atol=ROUNDING)

    def test_a_stored_model_is_the_same(self, tmp_path):
        model = a_model()
        sums = model.cluster_sums(model.features(random_patterns(9, 9, 8, 8))).flatten(0, 1)
        standardise(model, sums)
        assert model.exponents.max() < -5
        again, _ = load_network(save_weights(tmp_path / "m.safetensors", model, {}))
        # Half precision has 11 bits; scales are exact.
        assert torch.allclose(product(again).double(), product(model), rtol=2**-9)
        assert again.sampling == (0.2, 0.2)


@pytest.fixture(scope="module")
def planted():
    model = a_model(seed=3, cluster=5, rings=8, outer=3.0)
    # Bright in the middle, dark outside: rings that differ by orders of magnitude.
    k = torch.fft.fftfreq(16, 0.2, dtype=torch.float64)
    envelope = torch.exp(-torch.hypot(k[:, None], k) / 0.5)
    patterns = random_patterns(24, 22, 16, 16) * envelope
    sums = model.cluster_sums(model.features(patterns)).flatten(0, 1)
    return model, patterns, sums, model.image(patterns)


class TestFit:
    def test_a_planted_model_is_found_again(self, planted):
        model, patterns, sums, image = planted
        found = RadialModel(cluster=5, rings=8, outer=3.0, sampling=0.2).double()
        course = fit(found, sums, image.flatten(), ridge=1e-12, tolerance=1e-15)
        # Scales are powers of two within √2 of the deviations: no smaller than the ridge allows.
        assert course[-1] < 1e-8
        expected = product(model)
        assert float((product(found) - expected).abs().max() / expected.abs().max()) < 1e-4
        found.requires_grad_(False)
        assert float(found.weights.norm()) == pytest.approx(1)
        assert float(found.kernel().sum()) >= 0
        deviation = float(image.std())
        assert float((found.image(patterns) - image).abs().max()) < 1e-3 * deviation

    @given(seed=st.integers(0, 1000), noise=st.floats(0.1, 3))
    @settings(max_examples=8, deadline=None)
    def test_each_turn_makes_it_better_down_to_the_noise(self, planted, seed, noise):
        _, _, sums, image = planted
        signal = image.flatten()
        errors = torch.randn(signal.shape, generator=seeded(seed), dtype=torch.float64)
        target = signal + noise * signal.std() * errors
        course = fit(RadialModel(cluster=5, rings=8, outer=3.0, sampling=0.2).double(), sums, target)
        assert all(b <= a + 1e-12 for a, b in itertools.pairwise(course))
        # What is left is the noise, less what 6 + 8 numbers can follow among 360.
        left = noise**2 * float(errors.var()) * float(signal.var()) / float(target.var())
        assert (1 - 8 * 14 / 360) * left < course[-1] < 1.1 * left

    def test_gradients_lead_there_too(self, planted):
        _, _, sums, image = planted
        model = RadialModel(cluster=5, rings=8, outer=3.0, sampling=0.2).double()
        standardise(model, sums)
        target = image.flatten()
        middle = sums.mean(0)
        optimiser = torch.optim.Adam(model.parameters(), 0.03)
        for _ in range(800):
            mask = model.ring_values()
            made = torch.einsum("ndr,d,r->n", sums - middle, model.weights, mask) + model.bias
            loss = (made - target).square().mean() / target.var()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        assert float(loss.detach()) < 0.01

    def test_a_turned_sign_is_seen(self, planted):
        _, _, sums, image = planted
        one, two = (RadialModel(cluster=5, rings=8, outer=3.0, sampling=0.2).double() for _ in range(2))
        fit(one, sums, image.flatten())
        fit(two, sums, -image.flatten())
        assert torch.allclose(
            product(one), -product(two), rtol=1e-3, atol=1e-4 * float(product(one).abs().max())
        )


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: RadialModel(cluster=4), "cluster of 4"),
        (lambda: RadialModel(outer=-1.0), "-1.0 1/Å"),
        (lambda: RadialModel(rings=1), "rings 0"),
        (lambda: RadialModel()(torch.zeros(2, 5, 5, 8, 8)), r"\(2, 5, 5, 8, 8\)"),
        (lambda: RadialModel().image(torch.zeros(2, 5, 8, 8)), "3 positions"),
        (lambda: RadialModel().features(torch.zeros(8, 8, dtype=torch.int64)), "int64"),
        (lambda: scan_clusters(torch.zeros(3, 8, 4, 4), 5), "smaller"),
        (lambda: fit(RadialModel(), torch.zeros(9, 2, 16), torch.zeros(9)), r"\(9, 2, 16\)"),
        (lambda: fit(RadialModel(), torch.zeros(9, 3, 16), torch.zeros(9)), "do not vary"),
        (lambda: fit(RadialModel(), torch.zeros(9, 3, 16), torch.zeros(9), ridge=0.0), "ridge of 0.0"),
    ],
)
def test_bad_input_is_named(call, named):
    with pytest.raises(InputError, match=named):
        call()
