"""The network of whole scans: shifts, conditions, gauge, and that it learns to integrate."""

import math

import pytest
import torch

from exitwave.errors import InputError
from exitwave.networks.scannet import ScanNet, scan_conditions
from exitwave.networks.weights import load_network, save_weights

pytestmark = pytest.mark.usefixtures("one_thread")


def seeded(number):
    return torch.Generator().manual_seed(number)


def small(**changed):
    chosen = {
        "detector": (8, 8), "features": 8, "encoder": (8, 16), "width": 8, "depth": 2, "padding": "circular",
        "conditions": 1, "generator": seeded(0),
    }  # fmt: skip
    return ScanNet(**chosen | changed)


def awake(network, seed=1):
    """Return a network whose modulations, the identity at first, do something."""
    for name, each in network.named_parameters():
        if "modulation" in name:
            torch.nn.init.normal_(each, 0, 0.5, generator=seeded(seed))
    return network.requires_grad_(False).double()


def scans(count, size, detector, generator):
    """Return phases of few frequencies, and round patterns that their gradients move."""
    order = torch.fft.fftfreq(size, 1 / size)
    few = ((order[:, None].abs() <= 2) & (order.abs() <= 2)).float()
    few[0, 0] = 0
    phases = torch.fft.ifft2(torch.fft.fft2(torch.randn(count, size, size, generator=generator)) * few).real
    phases = phases / phases.std((-2, -1), keepdim=True)
    turns = 2j * math.pi / size * order
    spectra = torch.fft.fft2(phases)
    k = torch.fft.fftfreq(detector, 1 / detector)
    middles = (1.5 * torch.fft.ifft2(spectra * along).real for along in (turns[:, None], turns))
    y, x = (torch.exp(-((k - each[..., None]) ** 2) / 2 / (detector / 6) ** 2) for each in middles)
    patterns = y[..., :, None] * x[..., None, :]
    return patterns / patterns.sum((-2, -1), keepdim=True), phases


class TestSymmetries:
    def test_a_moved_scan_is_a_moved_phase(self):
        network = awake(small(upsampling=2))
        patterns = torch.rand(1, 16, 24, 8, 8, generator=seeded(2), dtype=torch.float64)
        told = torch.tensor([[0.7]], dtype=torch.float64)
        made = network(patterns, told)
        assert made.shape == (1, 1, 32, 48)
        moved = network(torch.roll(patterns, (4, -8), (1, 2)), told)
        assert torch.allclose(moved, torch.roll(made, (8, -16), (2, 3)), atol=1e-10)  # float64
        assert not torch.allclose(moved, made, atol=1e-3)

    def test_each_pattern_is_encoded_for_itself(self):
        network = awake(small())
        patterns = torch.rand(1, 8, 8, 8, 8, generator=seeded(2), dtype=torch.float64)
        features = network.encode(patterns)
        changed = patterns.clone()
        changed[0, 3, 5] = torch.roll(changed[0, 3, 5], 1, 0)
        differ = (network.encode(changed) - features).abs().amax((0, 1)) > 1e-6
        assert differ.nonzero().tolist() == [[3, 5]]

    def test_away_from_the_edges_neighbours_far_away_do_not_matter(self):
        """Without norms over the scan, only positions within the field of view of the U-Net count."""
        network = awake(small(padding="zero", depth=1))
        for name, each in list(network.body.named_modules()):
            if isinstance(each, torch.nn.GroupNorm):
                network.body.get_submodule(name.rpartition(".")[0])[int(name.rpartition(".")[2])] = (
                    torch.nn.Identity()
                )
        patterns = torch.rand(1, 64, 64, 8, 8, generator=seeded(3), dtype=torch.float64)
        told = torch.tensor([[0.7]], dtype=torch.float64)
        made = network.body(network.encode(patterns), told)
        moved = network.body(network.encode(torch.roll(patterns, (2, 4), (1, 2))), told)
        # Layers see 1 position each way: 6 of full size, 4 of half, and what halving and doubling add.
        inside = (..., slice(20, 44), slice(20, 44))
        assert torch.allclose(moved[inside], torch.roll(made, (2, 4), (-2, -1))[inside], atol=1e-9)
        assert not torch.allclose(moved, torch.roll(made, (2, 4), (-2, -1)), atol=1e-6)

    def test_the_mean_is_no_phase_and_dose_no_scale(self):
        network = awake(small())
        patterns = torch.rand(2, 16, 16, 8, 8, generator=seeded(2), dtype=torch.float64)
        told = torch.tensor([[0.7], [-1.0]], dtype=torch.float64)
        made = network(patterns, told)
        assert float(made.mean((-2, -1)).abs().max()) < 1e-12
        assert torch.allclose(network(100 * patterns, told), made, atol=1e-9)


@pytest.fixture(scope="module")
def learnt():
    """Integrate centres of mass, with the sign that a condition tells; 100 steps."""
    generator = seeded(0)
    patterns, phases = scans(64, 16, 8, generator)
    sign = torch.where(torch.rand(64, 1, generator=generator) > 0.5, 1.0, -1.0)
    network = small(generator=generator)
    optimiser = torch.optim.Adam(network.parameters(), 5e-3)
    for step in range(100):
        optimiser.param_groups[0]["lr"] = 5e-3 * (1 - step / 100)
        batch = torch.randint(64, (8,), generator=generator)
        wanted = (sign[..., None] * phases)[batch]
        loss = (network(patterns[batch], sign[batch])[:, 0] - wanted).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert all(float(each.grad.abs().max()) > 0 for each in network.parameters())
    return network.eval().requires_grad_(False)


class TestLearning:
    def test_it_integrates_centres_of_mass(self, learnt):
        """Phases not seen before, of variance 1: less is left than one missed pair of 24 frequencies."""
        patterns, phases = scans(16, 16, 8, seeded(77))
        for sign in (1.0, -1.0):
            made = learnt(patterns, torch.full((16, 1), sign))[:, 0]
            assert float((made - sign * phases).square().mean()) < 1 / 12

    def test_opposite_patterns_are_the_opposite_phase(self, learnt):
        """In focus those of the conjugate object: k becomes -k."""
        patterns, phases = scans(16, 16, 8, seeded(81))
        opposite = torch.roll(patterns.flip(3, 4), (1, 1), (3, 4))
        made = learnt(opposite, torch.ones(16, 1))[:, 0]
        assert float((made + phases).square().mean()) < 1 / 12

    def test_a_larger_scan_and_a_mirrored_one(self, learnt):
        patterns, phases = scans(4, 32, 8, seeded(78))
        # As steep as before: frequencies per scan are the same, so gradients are half as large.
        made = learnt(patterns, torch.ones(4, 1))[:, 0]
        similar = (made * phases).mean() / (made.square().mean() * phases.square().mean()).sqrt()
        assert float(similar) > math.sqrt(0.5)  # more than half of the variance
        # Mirrored along y, ky too: the same phase, mirrored.
        patterns, phases = scans(4, 16, 8, seeded(79))
        mirrored = torch.roll(patterns.flip(1, 3), 1, 3)
        made = learnt(mirrored, torch.ones(4, 1))[:, 0]
        assert float((made - phases.flip(1)).square().mean()) < 1 / 12

    def test_weights_come_back(self, learnt, tmp_path):
        again, about = load_network(save_weights(tmp_path / "w.safetensors", learnt, {}))
        assert about["network"] == "ScanNet"
        patterns, _ = scans(2, 16, 8, seeded(80))
        told = torch.ones(2, 1)
        assert torch.allclose(again(patterns, told), learnt(patterns, told), atol=0.05)  # half precision


def test_gradients_reach_the_patterns():
    network = small().double()
    patterns = torch.rand(1, 8, 8, 8, 8, generator=seeded(0), dtype=torch.float64) + 0.1
    patterns.requires_grad_()
    network(patterns, torch.zeros(1, 1, dtype=torch.float64)).square().sum().backward()
    assert (patterns.grad.abs().amax((-2, -1)) > 0).all()


def test_conditions_are_near_one():
    told = scan_conditions(torch.tensor([1.0, 1e4, math.inf]), 0.02, torch.tensor(-100.0))
    expected = torch.tensor([[-1.0, 0, -0.5], [0, 0, -0.5], [1, 0, -0.5]])
    assert torch.allclose(told, expected, atol=1e-6)
    assert scan_conditions(1e4, 0.03, 50.0).tolist() == [pytest.approx([0, 0.5, 0.25])]


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: small(detector=(8,)), r"detector of \(8,\)"),
        (lambda: small(upsampling=0), "upsampling 0"),
        (lambda: small(encoder=()), "layers 0"),
        (lambda: small()(torch.zeros(1, 8, 8, 8, 9), torch.zeros(1, 1)), r"\(1, 8, 8, 8, 9\)"),
        (lambda: small()(torch.zeros(1, 8, 10, 8, 8), torch.zeros(1, 1)), "8 x 10"),
        (lambda: small()(torch.zeros(1, 8, 8, 8, 8)), "0 conditions"),
        (lambda: scan_conditions(0.0, 0.02, 0.0), "dose"),
        (lambda: scan_conditions(1.0, 0.02, math.nan), "defocus"),
    ],
)
def test_bad_input_is_named(call, named):
    with pytest.raises(InputError, match=named):
        call()
