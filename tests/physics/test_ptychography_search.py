"""Defocus and rotation of simulated scans, and of a measured one with gold beads."""

import math

import numpy as np
import pytest
import torch

from exitwave import optics
from exitwave.errors import InputError
from exitwave.retrieve import ptychography, ptychography_search
from exitwave.simulate import scanning

pytestmark = pytest.mark.usefixtures("one_thread")

ENERGY, STEP, SIZE, ANGLE, LINES = 80e3, 0.25, 32, 0.03, 10


def seeded(number):
    return torch.Generator().manual_seed(number)


def scanned(defocus, rotation):
    """Return patterns (scan_y, scan_x, ky, kx) of a random phase object."""
    where, field = scanning.framed(
        scanning.raster((LINES, LINES), 0.8, rotation=rotation), STEP, (SIZE, SIZE)
    )
    ky, kx = optics.frequency_grid(field, STEP)
    noise = torch.fft.fft2(torch.randn(field, generator=seeded(0), dtype=torch.float64))
    phase = torch.fft.ifft2(noise * torch.exp(-(ky**2 + kx**2) / (2 * 0.4**2))).real
    thing = torch.polar(torch.ones(field).double(), 0.5 * phase / phase.std())[None]
    beam = scanning.probe(
        (SIZE, SIZE), STEP, energy=ENERGY, semiangle=ANGLE,
        aberrations=optics.Aberrations.from_defocus(defocus), dtype=torch.complex128,
    )  # fmt: skip
    return scanning.patterns(thing, beam, where, STEP).reshape(LINES, LINES, SIZE, SIZE).float()


def searched(measured, **options):
    given = {
        "energy": ENERGY, "semiangle": ANGLE, "defocus": (60.0, 140.0),
        "rotation": (math.radians(-10), math.radians(50)), "generator": seeded(1), "rounds": 2,
    }  # fmt: skip
    return ptychography_search.search(measured, 0.8, STEP, **(given | options))


@pytest.mark.parametrize("transposed", [False, True])
def test_a_known_geometry_is_found(transposed):
    # The last grid has steps of 10 Å and 7.5°: one of them is allowed.
    measured = scanned(80.0, math.radians(30))
    tried = searched(measured.mT if transposed else measured)
    best = tried[0]
    assert best.transposed is transposed
    assert best.defocus == pytest.approx(80, abs=10)
    assert math.degrees(best.rotation) == pytest.approx(30, abs=7.5)
    assert [each.loss for each in tried] == sorted(each.loss for each in tried)
    assert len({(each.defocus, each.rotation, each.transposed) for each in tried}) == len(tried)


def test_a_detector_turned_by_half_sees_the_opposite_defocus():
    # Conjugated and turned, object and probe make the turned patterns: why defocus has one sign.
    measured = scanned(80.0, 0.0)
    half = measured.flip(2, 3).roll((1, 1), (2, 3))
    losses = []
    for patterns, defocus, rotation in ((measured, 80.0, 0.0), (half, -80.0, 0.0), (half, 80.0, 0.0)):
        flat, start = ptychography_search.ScanGeometry(defocus, rotation).start(
            patterns, 0.8, STEP, energy=ENERGY, semiangle=ANGLE
        )
        found = ptychography.retrieve(flat, start, STEP, generator=seeded(1), epochs=3, batch=20)
        losses.append(float(found.loss[-1]))
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)
    assert losses[2] > 2 * losses[0]


def test_same_seed_same_trials_and_progress():
    told = []
    one, two = (
        searched(
            scanned(80.0, 0.5), points=3, rounds=1, epochs=1, transposed=(False,),
            observe=lambda count, loss: told.append((count, loss)),
        )
        for _ in range(2)
    )  # fmt: skip
    assert one == two
    assert [count for count, _ in told] == [*range(1, 10)] * 2
    assert min(loss for _, loss in told) == one[0].loss


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"measured": torch.ones(3, 8, 8)}, "as many ky as kx"),
        ({"measured": torch.ones(2, 2, 8, 6)}, "as many ky as kx"),
        ({"defocus": (50.0, 20.0)}, "defocus from 50 to 20 Å"),
        ({"rotation": (0.0, math.nan)}, "rotation from 0 to nan rad"),
        ({"points": 2}, "2 points in 2 rounds"),
    ],
)
def test_bad_input_is_named(changed, named):
    with pytest.raises(InputError, match=named):
        searched(**({"measured": torch.ones(2, 2, 8, 8)} | changed))


def test_gold_beads_are_found_from_a_rough_start(external_data):
    """A measured scan, 300 kV, 1.03 mrad, 31.25 Å; 135000 Å and -126° were written down with it."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(external_data / "4dstem_rotavirus" / "rotavirus_34x127x96x96_uint8.h5") as file:
        counts = file["datacube"][2:14, 64:76].astype(np.float32)
    # The bright disk tells the angle of a detector pixel: it has 1.03 mrad.
    mean = counts.mean((0, 1))
    inside = mean > 0.5 * np.sort(mean.ravel())[-1000]
    pixel = 1.03e-3 / math.sqrt(inside.sum() / math.pi)
    y, x = (int(each.mean().round()) for each in np.nonzero(inside))
    cropped = torch.from_numpy(counts[..., y - 32 : y + 32, x - 32 : x + 32].copy())
    measured = torch.fft.ifftshift(cropped, dim=(2, 3))
    sampling = optics.wavelength(300e3) / (64 * pixel)
    # Begun 30 % and 20° off, in the middle of these ranges.
    start, turn = 1.3 * 135000, math.radians(-126 - 20)
    best = ptychography_search.search(
        measured, 31.25, sampling, energy=300e3, generator=seeded(0),
        defocus=(start - 60000, start + 60000), rotation=(turn - 0.6, turn + 0.6),
    )[0]  # fmt: skip
    assert best.transposed is False
    assert best.defocus == pytest.approx(135000, rel=0.1)
    assert math.degrees(best.rotation) == pytest.approx(-126, abs=10)

    flat, begun = best.start(measured, 31.25, sampling, energy=300e3)
    found = ptychography.retrieve(flat, begun, sampling, generator=seeded(0), absorbs=True, epochs=10)
    # A bead takes electrons away and shifts the phase forward, where patterns vary most.
    varied = measured[..., :24, :24].flatten(2).std(2).flatten()
    where = (begun.positions[int(varied.argmax())] / sampling).round().long().tolist()
    near = tuple(slice(each - 16, each + 17) for each in where)
    modulus, phase = found.slices[0].abs()[near], found.slices[0].angle()[near]
    kernel = torch.ones(1, 1, 3, 3) / 9
    smooth = [torch.nn.functional.conv2d(each[None, None], kernel)[0, 0] for each in (modulus, phase)]
    darkest = np.unravel_index(int(smooth[0].argmin()), smooth[0].shape)
    away = [(float(each[darkest]) - float(each.mean())) / float(each.std()) for each in smooth]
    assert away[0] < -4
    assert away[1] > 2
