"""Ptychography of known objects: what is found, what noise and wrong signs do, bad input."""

import math

import pytest
import torch

from exitwave import metrics, optics
from exitwave.errors import InputError
from exitwave.retrieve import ptychography, ptychography_epie
from exitwave.retrieve.ptychography_gauge import matched
from exitwave.simulate import scanning

pytestmark = pytest.mark.usefixtures("one_thread")

ENERGY, STEP, SIZE, ANGLE = 80e3, 0.25, 32, 0.03


def seeded(number):
    return torch.Generator().manual_seed(number)


def beam(defocus=60.0):
    return scanning.probe(
        (SIZE, SIZE), STEP, energy=ENERGY, semiangle=ANGLE, aberrations=optics.Aberrations(C10=-defocus),
        dtype=torch.complex128,
    )  # fmt: skip


LINES = scanning.raster((12, 12), 0.8) + 0.05 * torch.randn(144, 2, generator=seeded(1)).double()
SCAN, FIELD = scanning.framed(LINES, STEP, (SIZE, SIZE))


def phases(seed=0, strength=0.5):
    """Return a smooth random phase; objects of it are about `strength` away from vacuum."""
    ky, kx = optics.frequency_grid(FIELD, STEP)
    noise = torch.fft.fft2(torch.randn(FIELD, generator=seeded(seed), dtype=torch.float64))
    found = torch.fft.ifft2(noise * torch.exp(-(ky**2 + kx**2) / (2 * 0.4**2))).real
    return strength * found / found.std()


def phase_object(*seeds):
    return torch.stack([torch.polar(torch.ones(FIELD).double(), phases(seed)) for seed in seeds])


@pytest.fixture(scope="module")
def thing():
    return phase_object(0)


@pytest.fixture(scope="module")
def patterns(thing):
    return 1000 * scanning.patterns(thing, beam(), SCAN, STEP)


def error(found, true):
    """Return the RMSE of the object within the scan, all that is gauge matched; an empty one has 0.5."""
    inside = (slice(SIZE // 2, -SIZE // 2),) * 2
    best = matched(found.slices.prod(0), true.prod(0), STEP, margin=SIZE // 2)
    return float(metrics.wave_rmse(best[inside], true.prod(0)[inside]))


def begun(measured, defocus=60.0, positions=SCAN, **options):
    return ptychography.begin(measured.float(), beam(defocus), positions, field=FIELD, **options)


def retrieved(measured, start=None, **options):
    return ptychography.retrieve(
        measured.float(), start or begun(measured), STEP, generator=seeded(2), **({"batch": 16} | options)
    )


class TestRetrieve:
    @pytest.mark.parametrize("loss", ptychography.LOSSES)
    def test_a_known_object_and_probe_are_found(self, patterns, thing, loss):
        # The probe begins 15 Å out of focus: 1 rad at the edge of the aperture.
        start = begun(patterns, defocus=45.0)
        found = retrieved(patterns, start, loss=loss)
        assert error(found, thing) < 0.05
        held = retrieved(patterns, start, loss=loss, free_probe=False)
        assert error(found, thing) < 0.5 * error(held, thing)
        overlap = (found.probe[0].conj() * beam().to(found.probe)).sum().abs()
        assert float(overlap / found.probe.abs().square().sum().sqrt()) > 0.99

    def test_the_conjugated_object_explains_nothing_more(self, patterns, thing):
        found = retrieved(patterns, free_probe=False, epochs=10)
        right = error(found, thing)
        assert right < 0.05
        assert error(found, thing.conj()) > 0.4

    def test_what_absorbs_is_found_as_such(self, thing):
        weak = thing * (1 - 0.2 * torch.sigmoid(phases(5, 4.0)))
        measured = scanning.patterns(weak, beam(), SCAN, STEP)
        errors = [error(retrieved(measured, free_probe=False, absorbs=each), weak) for each in (True, False)]
        # Blind to absorption, what is left is its deviation, some 0.06.
        assert errors[0] < 0.02 < 0.04 < errors[1]

    def test_two_slices_explain_what_one_cannot(self):
        two = phase_object(0, 1)
        free = optics.propagator((SIZE, SIZE), STEP, 60.0, ENERGY, dtype=torch.complex128)
        measured = scanning.patterns(two, beam(), SCAN, STEP, propagator=free)
        one = retrieved(measured, free_probe=False)
        both = retrieved(measured, begun(measured, slices=2), propagator=free, free_probe=False)
        assert float(both.loss[-1]) < 0.2 * float(one.loss[-1])

    def test_likelihood_uses_few_electrons_better_than_moduli(self, patterns, thing):
        # One electron in four pixels: the mean of the root is far from the root of the mean.
        counts = torch.poisson(patterns / 1000 * 256, generator=seeded(3))
        poisson, amplitude = (
            error(retrieved(counts, free_probe=False, loss=loss), thing) for loss in ("poisson", "amplitude")
        )
        epie = ptychography_epie.epie(
            counts.float(), begun(counts), STEP, generator=seeded(2), epochs=10, steps=(1.0, 0.0)
        )
        assert poisson < amplitude
        assert poisson < error(epie, thing)

    def test_what_was_found_is_a_start(self, patterns, thing):
        first = retrieved(patterns, epochs=4)
        more = retrieved(patterns, first, epochs=4)
        assert more.loss.shape == (8,)
        assert torch.equal(more.loss[:4], first.loss)
        assert float(more.loss[4]) < 2 * float(first.loss[3])
        assert error(more, thing) < error(first, thing)

    def test_same_seed_same_bits_and_progress(self, patterns):
        told = []
        one, two = (
            retrieved(
                patterns, epochs=2, free_positions=True,
                observe=lambda epoch, loss: told.append((epoch, loss)),
            )
            for _ in range(2)
        )  # fmt: skip
        assert torch.equal(one.slices, two.slices)
        assert torch.equal(one.positions, two.positions)
        assert [epoch for epoch, _ in told] == [1, 2] * 2
        assert torch.allclose(one.loss, torch.tensor([loss for _, loss in told[:2]]))

    def test_empty_patterns_are_patterns(self, patterns):
        # Sorted, more of them than are looked at together: no division by their sum.
        dark = patterns.clone()
        dark[:40] = 0
        found = retrieved(dark, epochs=2, absorbs=True, batch=144)
        assert bool(found.slices.isfinite().all())
        assert bool(found.loss.isfinite().all())
        only = ptychography.poisson_loss(dark[:16] + 1, dark[:16], dark.mean())
        assert float(only) == pytest.approx(2 / float(dark.mean()), rel=0.05)

    @pytest.mark.parametrize("unit", [1e-6, 1.0])
    def test_the_unit_of_the_counts_does_not_matter(self, patterns, unit):
        one, other = (retrieved(patterns * each, epochs=2) for each in (1e-3, unit))
        assert torch.allclose(one.slices, other.slices, atol=1e-3)
        assert torch.allclose(one.loss, other.loss, rtol=1e-3)


class TestModes:
    def test_two_modes_are_found(self, thing):
        # Beams focused and displaced: a quarter of the power is not coherent with the rest.
        pure = torch.stack(
            [beam(), scanning.moved(beam()[None], torch.tensor([[0.9, 0.0]]).double(), STEP)[0, 0]]
        )
        mixed = ptychography.orthogonal(pure * torch.tensor([0.6, 0.4]).double().sqrt()[:, None, None])
        measured = scanning.patterns(thing, mixed, SCAN, STEP)
        powers = mixed.abs().square().sum((1, 2))
        one = retrieved(measured)
        two = retrieved(measured, begun(measured, modes=2), epochs=40)
        assert float(two.loss[-1]) < 0.1 * float(one.loss[-1])
        assert error(two, thing) < 0.7 * error(one, thing)
        assert torch.allclose(two.powers.double(), powers, atol=0.03)
        assert float((two.probe[0].conj() * two.probe[1]).sum().abs()) < 1e-4 * float(
            two.probe.abs().square().sum()
        )

    def test_orthogonal_modes_make_the_same_patterns(self, thing):
        each = torch.stack([beam(d) for d in (30.0, 60.0, 90.0)]) * (1 + 2j)
        where = SCAN[:3]
        found = ptychography.orthogonal(each)
        assert torch.allclose(
            scanning.patterns(thing, found, where, STEP),
            scanning.patterns(thing, each, where, STEP),
            atol=1e-12,
        )
        overlaps = found.reshape(3, -1).conj() @ found.reshape(3, -1).T
        assert torch.allclose(overlaps, overlaps.diag().diag(), atol=1e-12)
        assert list(found.abs().square().sum((1, 2))) == sorted(
            found.abs().square().sum((1, 2)), reverse=True
        )


class TestPositions:
    def test_displaced_positions_are_found(self, patterns, thing):
        wrong = 0.25 * torch.randn(SCAN.shape, generator=seeded(3), dtype=torch.float64)
        wrong = wrong - wrong.mean(0)
        start = begun(patterns, positions=SCAN + wrong)
        found = retrieved(patterns, start, free_positions=True, epochs=30)
        assert torch.allclose(found.positions.mean(0), start.positions.mean(0), atol=1e-3)
        left = found.positions.double() - SCAN
        assert float(left.square().mean().sqrt()) < 0.2 * float(wrong.square().mean().sqrt())
        held = retrieved(patterns, start, epochs=30)
        assert error(found, thing) < 0.5 * error(held, thing)


class TestEpie:
    def test_a_known_object_and_probe_are_found(self, patterns, thing):
        found = ptychography_epie.epie(
            patterns.float(), begun(patterns, defocus=45.0), STEP, generator=seeded(2), epochs=15
        )
        assert error(found, thing) < 0.1
        assert float(found.loss[-1]) < 0.1 * float(found.loss[0])

    def test_a_right_answer_stays(self, patterns, thing):
        right = begun(patterns)
        right = ptychography.Reconstruction(thing.to(right.probe), right.probe, right.positions, right.loss)
        found = ptychography_epie.epie(patterns.float(), right, STEP, generator=seeded(2), epochs=2)
        assert float(found.loss[-1]) < 1e-8
        assert torch.allclose(found.probe, right.probe, atol=1e-4 * float(right.probe.abs().max()))


@pytest.mark.parametrize("loss", ptychography.LOSSES.values())
def test_losses_have_their_gradients_and_no_lower_point(loss):
    counts = torch.poisson(torch.full((2, 5, 5), 3.0).double(), generator=seeded(0))
    modelled = (3 + torch.rand(2, 5, 5, generator=seeded(1), dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(loss, (modelled, counts))
    assert float(loss(counts, counts)) == pytest.approx(0, abs=1e-12)
    assert float(loss(modelled.detach(), counts)) > 0


def test_losses_agree_for_many_electrons():
    # To first order in the relative error, 1 %: both are Σ (m - n)²/n over Σ n.
    counts = 1e4 * (1 + torch.rand(3, 8, 8, generator=seeded(0), dtype=torch.float64))
    modelled = counts * (1 + 0.01 * torch.randn(counts.shape, generator=seeded(1), dtype=torch.float64))
    expected = float(((modelled - counts).square() / counts).sum() / counts.sum())
    for loss in ptychography.LOSSES.values():
        assert float(loss(modelled, counts)) == pytest.approx(expected, rel=0.02)


def test_the_gradient_of_everything(thing):
    counts = torch.poisson(100 * scanning.patterns(thing, beam(), SCAN[:2], STEP), generator=seeded(4))
    phase, where = phases(1).requires_grad_(), SCAN[:2].clone().requires_grad_()

    def value(phase, where):
        one = torch.polar(torch.ones_like(phase), phase)[None]
        return ptychography.poisson_loss(scanning.patterns(one, 10 * beam(), where, STEP), counts)

    assert torch.autograd.gradcheck(value, (phase, where), fast_mode=True)


class TestBadInput:
    @pytest.mark.parametrize(
        ("changed", "named"),
        [
            ({"measured": torch.ones(4, 4)}, "give real"),
            ({"measured": torch.ones(144, 16, 16)}, "give real"),
            ({"measured": torch.ones(3, SIZE, SIZE)}, "3 patterns at 144 positions"),
            ({"measured": torch.full((144, SIZE, SIZE), math.nan)}, "mask dead pixels"),
            ({"measured": torch.zeros(144, SIZE, SIZE)}, "no electrons"),
            ({"measured": torch.eye(SIZE).expand(144, SIZE, SIZE) - 0.01}, "-0.01 electrons in a pixel"),
            ({"probe": torch.zeros(SIZE, SIZE, dtype=torch.complex64)}, "a probe of intensity"),
            ({"probe": torch.ones(SIZE, SIZE)}, "give complex"),
            ({"modes": 0}, "0 modes"),
        ],
    )
    def test_of_a_start_is_named(self, patterns, changed, named):
        good = {"measured": patterns, "probe": beam(), "positions": SCAN, "field": FIELD}
        with pytest.raises(InputError, match=named):
            ptychography.begin(**(good | changed))

    @pytest.mark.parametrize(
        ("changed", "named"),
        [
            ({"loss": "squares"}, "unknown loss 'squares'"),
            ({"epochs": 0}, "0 epochs"),
            ({"rate": 3.0}, "rate of 3"),
        ],
    )
    def test_is_named(self, patterns, changed, named):
        with pytest.raises(InputError, match=named):
            retrieved(patterns, **changed)

    def test_epie_takes_one_of_each(self, patterns):
        with pytest.raises(InputError, match="2 slices with 1 modes"):
            ptychography_epie.epie(patterns.float(), begun(patterns, slices=2), STEP, generator=seeded(0))
