"""4D convolutions and pooling beside their definitions; the network on clusters and on whole scans."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from exitwave.errors import InputError
from exitwave.networks import tasks, training
from exitwave.networks.convolution4d import ClusterNet, Convolution4d, Dropout, Pooling4d, scaled
from exitwave.networks.layers import count_parameters
from exitwave.networks.radial import scan_clusters
from exitwave.networks.weights import load_network, save_weights

pytestmark = pytest.mark.usefixtures("one_thread")


def seeded(number):
    return torch.Generator().manual_seed(number)


def naive(x, kernel, bias, padding):
    """Add up the input moved by each element of the kernel, times that."""
    zeros = [n for one in reversed(padding) for n in (one, one)]
    x = functional.pad(x, zeros)
    size = [n - k + 1 for n, k in zip(x.shape[2:], kernel.shape[2:], strict=True)]
    made = bias[:, None, None, None, None].expand(len(x), -1, *size)
    for place in torch.cartesian_prod(*(torch.arange(k) for k in kernel.shape[2:])).tolist():
        part = x[(..., *(slice(a, a + n) for a, n in zip(place, size, strict=True)))]
        made = made + torch.einsum("ncabyx,oc->noabyx", part, kernel[(..., *place)])
    return made


def begun(layer, seed=0):
    for each in layer.parameters():
        torch.nn.init.normal_(each, generator=seeded(seed))
    return layer


class TestConvolution:
    @given(
        inputs=st.integers(1, 3), outputs=st.integers(1, 3), seed=st.integers(0, 99),
        kernel=st.tuples(*[st.integers(1, 3)] * 2, *[st.sampled_from([1, 3, 5])] * 2),
        padding=st.one_of(st.none(), st.tuples(*[st.integers(0, 2)] * 4)),
    )  # fmt: skip
    @settings(max_examples=25, deadline=None)
    def test_it_is_the_sum_over_moved_slices(self, inputs, outputs, seed, kernel, padding):
        layer = begun(Convolution4d(inputs, outputs, kernel, padding=padding).double(), seed)
        x = torch.randn(2, inputs, 4, 3, 5, 6, generator=seeded(seed + 1), dtype=torch.float64)
        expected = naive(x, layer.kernel(), layer.bias, padding or (0, 0, kernel[2] // 2, kernel[3] // 2))
        made = layer(x)
        assert made.shape == expected.shape
        assert torch.allclose(made, expected, atol=1e-10)  # float64, at most 400 terms

    @pytest.mark.parametrize(("inputs", "outputs", "size"), [(1, 8, 32), (8, 16, 16)])
    def test_single_precision(self, inputs, outputs, size):
        layer = Convolution4d(inputs, outputs)
        with torch.no_grad():
            layer.weight.normal_(0, 1 / math.sqrt(81 * inputs), generator=seeded(0))
        x = torch.randn(2, inputs, 3, 4, size, size, generator=seeded(1))
        expected = naive(x, layer.kernel(), layer.bias, (0, 0, 1, 1))
        assert float((layer(x) - expected).detach().abs().max()) < 1e-5

    def test_gradients(self):
        layer = begun(Convolution4d(2, 2, (2, 2, 3, 3), padding=(1, 0, 1, 1)).double())
        x = torch.randn(1, 2, 2, 3, 4, 3, generator=seeded(1), dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(
            lambda x, weight, bias: torch.func.functional_call(layer, {"weight": weight, "bias": bias}, x),
            (x, layer.weight, layer.bias),
        )

    def test_each_axis_of_the_kernel_is_its_own(self):
        layer = Convolution4d(1, 1, (3, 3, 3, 3), padding=(1, 1, 1, 1), bias=False)
        x = torch.randn(1, 1, 5, 6, 7, 8, generator=seeded(0))
        for axis in range(4):
            place = [1, 1, 1, 1]
            place[axis] = 2  # the next one
            with torch.no_grad():
                layer.weight.zero_()
                layer.kernel()[(0, 0, *place)] = 1
            inside = (0, 0, *(slice(1, -1) for _ in range(4)))
            assert torch.equal(layer(x)[inside], torch.roll(x, -1, 2 + axis)[inside])

    def test_first_weights_are_those_of_he(self):
        """All inputs of a unit count, the scan axes too."""
        weight = ClusterNet(channels=(32, 32), generator=seeded(2)).body[3].weight.detach()
        assert float(weight.std()) == pytest.approx(math.sqrt(2 / (32 * 81)), rel=0.02)


class TestPooling:
    @pytest.mark.parametrize("kind", ["average", "max"])
    @pytest.mark.parametrize("size", [(1, 1, 2, 2), (2, 3, 2, 2), (2, 1, 1, 3)])
    def test_blocks(self, kind, size):
        x = torch.randn(2, 3, 4, 6, 8, 6, generator=seeded(0), dtype=torch.float64)
        blocks = x.reshape(2, 3, *(n for s, k in zip(x.shape[2:], size, strict=True) for n in (s // k, k)))
        inner = (3, 5, 7, 9)
        expected = blocks.mean(inner) if kind == "average" else blocks.amax(inner)
        assert torch.allclose(Pooling4d(size, kind)(x), expected, atol=1e-12)
        # What is left over at an end does not count.
        longer = functional.pad(x, (0, 0, 0, size[2] - 1, 0, 0, 0, size[0] - 1), value=9.0)
        assert torch.allclose(Pooling4d(size, kind)(longer), expected, atol=1e-12)


class TestDropout:
    def test_the_mean_stays_and_each_call_is_another(self):
        layer = Dropout(0.3).train()
        layer.begin(seeded(0))
        before = torch.get_rng_state()
        x = torch.ones(200, 200)
        one, two = layer(x), layer(x)
        assert torch.equal(torch.get_rng_state(), before)
        assert not torch.equal(one, two)
        # Of 40 000 values; six standard deviations.
        spread = math.sqrt(0.3 * 0.7 / 40_000)
        assert float((one == 0).float().mean()) == pytest.approx(0.3, abs=6 * spread)
        assert torch.allclose(one[one != 0], torch.tensor(1 / 0.7))
        assert layer.eval()(x) is x

    def test_it_goes_on_from_what_is_stored(self):
        layer = Dropout(0.5).train()
        layer.begin(seeded(3))
        x = torch.ones(8, 8)
        layer(x)
        again = Dropout(0.5).train()
        again.load_state_dict(layer.state_dict())
        assert torch.equal(layer(x), again(x))


def scan(*shape, seed=0):
    return torch.rand(shape, generator=seeded(seed)) ** 3


def small(**changed):
    chosen = {"detector": (8, 12), "channels": (3, 4), "generator": seeded(1)} | changed
    return ClusterNet(**chosen).eval().requires_grad_(False)


class TestClusterNet:
    def test_number_of_weights(self):
        # Two 4D kernels with biases; twice halved, 8 x 8 of the detector are left.
        expected = (81 * 8 + 8) + (8 * 81 * 16 + 16) + (16 * 8 * 8 + 1)
        assert count_parameters(ClusterNet()) == expected

    @pytest.mark.parametrize(
        "changed",
        [
            {},
            {"pooling": "max", "scaling": "mean"},
            {"cluster": 7, "outputs": 2, "scaling": "none"},
            {"cluster": 3, "kernel": (2, 1, 3, 1)},
        ],
    )
    def test_a_whole_scan_is_its_clusters(self, changed):
        network = small(**changed)
        patterns = scan(12, 10, 8, 12)
        clusters = scan_clusters(patterns, network.cluster)
        expected = network(clusters.flatten(0, 1))
        expected = expected.reshape(*clusters.shape[:2], *expected.shape[1:])
        for rows in (1, 3, 16):
            made = network.image(patterns, rows=rows)
            assert made.shape == expected.shape
            # float32, a few hundred terms near 1.
            assert torch.allclose(made, expected, atol=1e-5)
        assert float(expected.std()) > 1e-2

    def test_what_scaling_takes_away(self):
        clusters = scan(3, 5, 5, 8, 12)
        for scaling in ("mean", "root"):
            network = small(scaling=scaling)
            assert torch.allclose(network(50 * clusters), network(clusters), atol=1e-5)
            empty = clusters.clone()
            empty[0, 2, 2] = 0
            assert network(empty).isfinite().all()
        assert not torch.allclose(small(scaling="none")(50 * clusters), small(scaling="none")(clusters))

    def test_patterns_are_centred_for_it(self):
        pattern = torch.zeros(8, 12)
        pattern[0, 0] = 96.0
        middle = torch.zeros(8, 12)
        middle[4, 6] = 1.0
        assert torch.equal(scaled(pattern, "none"), 96 * middle)
        assert torch.equal(scaled(pattern, "mean"), 96 * middle)
        assert torch.allclose(scaled(4 * pattern, "root"), math.sqrt(96) * middle)

    def test_it_learns_what_neighbours_say_together(self):
        """The difference of the centres of mass left and right: no round model can see it.

        Half of the variance is left if one of the two is not seen, all of it for a round model.
        """
        generator = seeded(0)
        centres = torch.rand(600, 5, 5, generator=generator) - 0.5
        k = torch.fft.fftfreq(8, 1 / 8)
        along = torch.exp(-((k - centres[..., None]) ** 2) / 2)
        clusters = (along[..., None, :] * torch.exp(-(k**2) / 2)[:, None]).contiguous()
        target = centres[:, 2, 3] - centres[:, 2, 1]
        target = target / target.std()
        network = ClusterNet((8, 8), channels=(4, 8), dropout=0.0, generator=generator)
        optimiser = torch.optim.Adam(network.parameters(), 5e-3)
        for _ in range(150):
            batch = torch.randint(500, (64,), generator=generator)
            loss = (network(clusters[batch]) - target[batch]).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            made = network.eval()(clusters[500:])
        assert float((made - target[500:]).square().mean()) < 0.1
        # A mirrored scan has the other sign.
        with torch.no_grad():
            mirrored = network(clusters[500:].flip(2))
        assert float((mirrored + target[500:]).square().mean()) < 0.1

    def test_a_resumed_training_ends_as_one_that_was_never_stopped(self, tmp_path):
        """Dropout and averaged weights included."""
        data = {"input": scan(8, 5, 5, 8, 12), "target": torch.linspace(0, 1, 8)}
        options = training.Options(
            epochs=4, batch=4, precision="32", average=0.9, checkpoint_minutes=0, validate_every=0
        )

        def run(folder, **how):
            network = ClusterNet((8, 12), channels=(3, 4), dropout=0.5).train()
            task = tasks.Regression(network, tasks.adam(network, 1e-3))
            training.fit(task, data, options, generator=seeded(0), folder=tmp_path / folder, **how)
            return network

        def stop(progress):
            if progress.step == 3:
                raise KeyboardInterrupt

        whole = run("whole")
        with pytest.raises(KeyboardInterrupt):
            run("parts", report=stop)
        again = run("parts", resume=True)
        assert int(whole.drop.drawn) == int(again.drop.drawn) == 8
        assert all(map(torch.equal, whole.parameters(), again.parameters()))

    def test_a_stored_network_is_the_same(self, tmp_path):
        network = small(outputs=2)
        again, about = load_network(save_weights(tmp_path / "w.safetensors", network, {}))
        assert about["network"] == "ClusterNet"
        clusters = scan(3, 5, 5, 8, 12)
        assert torch.allclose(again(clusters), network(clusters), atol=1e-2)  # half precision
        assert int(again.drop.seed) == int(network.drop.seed)

    def test_first_weights_are_drawn_from_the_generator_alone(self):
        before = torch.get_rng_state()
        one, two, three = (small(generator=seeded(n)) for n in (5, 5, 6))
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.equal(one.dense.weight, two.dense.weight)
        assert not torch.equal(one.dense.weight, three.dense.weight)
        assert one.drop.seed == two.drop.seed != three.drop.seed


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: small(cluster=4), "cluster of 4"),
        (lambda: small(cluster=3), "cluster of 3 for two kernels"),
        (lambda: small(detector=(8, 10)), r"detector of \(8, 10\)"),
        (lambda: small(kernel=(3, 3, 2, 3)), "odd numbers along the detector"),
        (lambda: small(kernel=(3, 3, 3)), "four whole numbers"),
        (lambda: small(pooling="mean"), "'mean'"),
        (lambda: small(scaling="log"), "'log'"),
        (lambda: small(dropout=1.0), "dropout of 1.0"),
        (lambda: small()(torch.zeros(2, 3, 3, 8, 12)), r"\(2, 3, 3, 8, 12\)"),
        (lambda: small().image(torch.zeros(4, 9, 8, 12)), "5 positions"),
        (lambda: Convolution4d(2, 1)(torch.zeros(1, 1, 3, 3, 4, 4)), r"\(1, 1, 3, 3, 4, 4\)"),
        (lambda: Convolution4d(1, 1)(torch.zeros(1, 1, 2, 3, 4, 4)), "as large as the kernel"),
        (lambda: Convolution4d(1, 1, (0, 1, 1, 1)), "1 or more"),
    ],
)
def test_bad_input_is_named(call, named):
    with pytest.raises(InputError, match=named):
        call()
