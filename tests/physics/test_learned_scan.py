"""Networks on scans: whole scans, how phases become patterns, learning from a scan without a label."""

import math

import pytest
import torch
from torch import nn

from exitwave.errors import InputError
from exitwave.retrieve import learned_scan
from exitwave.simulate import scanning

pytestmark = pytest.mark.usefixtures("one_thread")

PIXELS, SAMPLING, STEP = 24, 0.4, 0.5


def seeded(number):
    return torch.Generator().manual_seed(number)


class Mean(nn.Module):
    """The mean of each pattern times a number that can be learned, and what it is told."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(0.1))

    def forward(self, patterns, told=None):
        made = patterns.mean((-2, -1))[:, None] * self.factor
        return made if told is None else made * told[0, 0]


@pytest.fixture
def probe():
    return scanning.probe((PIXELS, PIXELS), SAMPLING, energy=80e3, semiangle=0.03)[None]


def smooth(rows, columns, generator):
    """Return a phase (rows, columns), rad, whose frequencies are well below those of the positions."""
    y, x = torch.fft.fftfreq(rows)[:, None], torch.fft.fftfreq(columns)
    few = torch.exp(-(torch.hypot(y, x) ** 2) / (2 * 0.12**2))
    made = torch.fft.ifft2(torch.fft.fft2(torch.randn(rows, columns, generator=generator)) * few).real
    return 0.2 * made / made.std()


# --- whole scans ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(16, 16), (17, 23), (31, 40)])
def test_an_image_is_as_large_as_its_scan(shape):
    seen = torch.rand(*shape, 4, 4, generator=seeded(0))
    made = learned_scan.predict(Mean(), seen)
    wanted = 0.1 * seen.mean((2, 3))
    torch.testing.assert_close(made, wanted - wanted.mean())
    torch.testing.assert_close(learned_scan.predict(Mean(), seen, torch.tensor([[2.0]])), 2 * made)


def test_a_scan_of_fewer_than_two_blocks_is_refused():
    with pytest.raises(InputError, match="15 x 40 positions: give 16 or more"):
        learned_scan.predict(Mean(), torch.zeros(15, 40, 4, 4))


def test_what_is_no_image_is_refused():
    class Wrong(nn.Module):
        def forward(self, patterns):
            return patterns.mean((-2, -1))[:, None, ::2]

    class Endless(nn.Module):
        def forward(self, patterns):
            return patterns.mean((-2, -1))[:, None] * math.inf

    for network in (Wrong(), Endless()):
        with pytest.raises(InputError, match="not a finite image"):
            learned_scan.predict(network, torch.ones(16, 16, 4, 4))


# --- from phases to patterns ----------------------------------------------------------------------


def test_interpolation_keeps_constants_and_waves():
    matrix = learned_scan.interpolation(80, 0.25, 0.33, 4.0, 32)
    assert matrix.shape == (80, 32)
    at, nodes = torch.arange(80) * 0.25, 4.0 + 0.33 * torch.arange(32)
    within = (at > 4.0 + 5 * 0.33) & (at < 4.0 + 26 * 0.33)
    torch.testing.assert_close((matrix @ torch.ones(32))[within], torch.ones(int(within.sum())))
    wave = torch.cos(2 * math.pi * nodes / 1.6)
    torch.testing.assert_close(
        (matrix @ wave)[within], torch.cos(2 * math.pi * at / 1.6)[within], atol=0.02, rtol=0
    )
    assert float(matrix[at < 2.0].abs().max()) == 0


@pytest.mark.parametrize("step", [(STEP, STEP), (0.35, 0.5)])
def test_patterns_of_a_piece_are_those_of_the_whole_object(probe, step):
    """The phase at the positions, made an object, is the object that was scanned; axes included."""
    model = learned_scan.model_of((48, 41), step, probe, SAMPLING)
    assert model.piece == 32
    phase = smooth(32, 32, seeded(1))
    # The same by one cosine transform after the other: a dense matrix, no windows.
    made = model.patterns(phase)
    assert made.shape == (16 * 16, PIXELS, PIXELS)
    angle = model.rows @ phase @ model.columns.T
    position = 16 * 3 + 5  # row 11, column 13 of the piece
    begin = model.places[0] - torch.tensor([8 * step[0], 8 * step[1]])
    at = begin + torch.tensor([(8 + 3) * step[0], (8 + 5) * step[1]])
    torch.testing.assert_close(model.places[position], at)
    # At the position itself the object has the phase of the node.
    y, x = (at / SAMPLING).round().long().tolist()
    near = phase[8 + 3, 8 + 5]
    slope = float(phase.diff(dim=0).abs().max() + phase.diff(dim=1).abs().max())
    assert abs(float(angle[y, x] - near)) < slope
    whole = torch.polar(torch.ones_like(angle), angle)[None]
    again = scanning.patterns(whole, probe, model.places[position : position + 1], SAMPLING)
    torch.testing.assert_close(made[position : position + 1], again)
    torch.testing.assert_close(made.sum((1, 2)), torch.ones(256), atol=1e-4, rtol=0)


def test_a_gradient_of_the_phase_moves_the_patterns(probe):
    """Towards higher frequencies where the phase rises: 1 rad per Å is 1/2π per Å."""
    model = learned_scan.model_of((40, 40), (STEP, STEP), probe, SAMPLING)
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    made = model.patterns(0.3 * STEP * y - 0.1 * STEP * x)
    order = torch.fft.fftfreq(PIXELS, SAMPLING)
    inner = made.unflatten(0, (16, 16))[6:10, 6:10].flatten(0, 1)
    ky = (inner.sum(2) * order).sum(1) / inner.sum((1, 2))
    kx = (inner.sum(1) * order).sum(1) / inner.sum((1, 2))
    still = scanning.patterns(torch.ones(1, 60, 60, dtype=torch.complex64), probe, model.places[:1], SAMPLING)
    assert float((ky - (still.sum(2) * order).sum()).mean()) == pytest.approx(0.3 / (2 * math.pi), rel=0.05)
    assert float((kx - (still.sum(1) * order).sum()).mean()) == pytest.approx(-0.1 / (2 * math.pi), rel=0.05)


@pytest.mark.parametrize(("shape", "piece"), [((24, 30), 24), ((32, 32), 24), ((40, 67), 32), ((90, 48), 32)])
def test_a_piece_can_move_where_the_scan_has_room(probe, shape, piece):
    assert learned_scan.model_of(shape, (STEP, STEP), probe, SAMPLING).piece == piece


def test_a_scan_that_is_too_small_for_a_piece_is_refused(probe):
    with pytest.raises(InputError, match="20 x 29 positions: give 24 or more"):
        learned_scan.model_of((20, 29), (STEP, STEP), probe, SAMPLING)


# --- learning from a scan -------------------------------------------------------------------------


class Gain(nn.Module):
    """Gives the first pixel of the patterns, times a number."""

    def __init__(self, factor=0.95):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, patterns):
        return patterns[..., 0, 0][:, None] * self.factor


@pytest.mark.parametrize("factor", [0.95, 1.05])
def test_the_right_scale_of_a_phase_is_learned_from_electrons(probe, factor):
    """The network is shown the true phase, and must find by how much to multiply it: 1."""
    phase = smooth(32, 32, seeded(2))
    model = learned_scan.model_of((40, 40), (STEP, STEP), 1e3 * probe, SAMPLING)
    counts = torch.zeros(32, 32, PIXELS, PIXELS)
    expected = model.patterns(phase)
    counts[8:24, 8:24] = torch.poisson(expected, generator=seeded(3)).unflatten(0, (16, 16))
    network, losses = Gain(factor), []
    pupil = learned_scan.teach(
        network, counts, phase[..., None, None], None, model, steps=150, unit=1.0, generator=seeded(0),
        rate=1e-3, observe=lambda step, loss: losses.append((step, loss)),
    )  # fmt: skip
    assert pupil.factor.item() == pytest.approx(1, abs=0.02)
    assert network.factor.item() == pytest.approx(factor)
    assert [step for step, _ in losses] == list(range(1, 151))
    assert losses[-1][1] < losses[0][1]
    assert not pupil.training


def test_what_explains_nothing_is_refused(probe):
    model = learned_scan.model_of((40, 40), (STEP, STEP), probe, SAMPLING)
    counts = torch.full((32, 32, PIXELS, PIXELS), math.nan)
    with pytest.raises(InputError, match="explains nothing"):
        learned_scan.teach(
            Gain(), counts, torch.ones(32, 32, 1, 1), None, model, steps=1, unit=1.0, generator=seeded(0)
        )
