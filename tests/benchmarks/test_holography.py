"""How long it takes from a hologram and its reference to the wave; run with ``make bench``.

1024 x 1024 pixels, double precision, one thread: the carrier is found in the reference, side bands are cut
from both and divided. The peer is holospy, which does the same, but finds the carrier to a whole pixel only;
the third is what one writes oneself in NumPy, told where the side band is. The carrier lies on a pixel and
the aperture is hard, so that all three end at the same wave, which each test checks.
"""

import numpy as np
import pytest
import torch

from exitwave.retrieve import holography
from exitwave.simulate import holograms

pytestmark = pytest.mark.usefixtures("one_thread")

N, STEP, POSITION, PIXELS = 1024, 0.2, (211, -149), 70.5
CARRIER = tuple(p / (N * STEP) for p in POSITION)
RADIUS = PIXELS / (N * STEP)


@pytest.fixture(scope="module")
def pair():
    """A hologram of smooth hills and one of the vacuum."""
    y, x = torch.meshgrid(*[torch.arange(N, dtype=torch.float64) / N] * 2, indexing="ij")
    phase = 3 * torch.exp(-((x - 0.4) ** 2 + (y - 0.6) ** 2) / 0.02)
    waves = torch.stack([torch.polar(1 - 0.1 * phase / 3, phase), torch.ones(N, N, dtype=torch.complex128)])
    return holograms.simulate(waves, sampling=STEP, carrier=CARRIER, contrast=0.3), waves[0]


def error(wave, truth):
    return float((torch.as_tensor(wave) - truth).abs().square().mean().sqrt())


def test_exitwave(benchmark, pair):
    (hologram, empty), truth = pair
    found = benchmark(
        holography.retrieve_wave, hologram, sampling=STEP, reference=empty, radius=RADIUS, edge=0.0
    )
    assert error(found.wave, truth) < 1e-3


def test_exitwave_told_the_carrier(benchmark, pair):
    (hologram, empty), truth = pair
    found = benchmark(
        holography.retrieve_wave, hologram, sampling=STEP, carrier=CARRIER, reference=empty, radius=RADIUS,
        edge=0.0,
    )  # fmt: skip
    assert error(found.wave, truth) < 1e-3


def test_holospy(benchmark, pair):
    signals = pytest.importorskip("holospy").signals
    images, truth = pair
    hologram, empty = (signals.HologramImage(image.numpy()) for image in images)

    def retrieve():
        place = empty.estimate_sideband_position(sb="lower")
        return hologram.reconstruct_phase(
            empty, sb_position=place, sb_size=PIXELS, sb_smoothness=1e-4, store_parameters=False
        )

    assert error(benchmark(retrieve).data, truth) < 1e-3


def test_numpy(benchmark, pair):
    images, truth = pair

    def side_band(image):
        k = np.fft.fftfreq(N, 1 / N)
        spectrum = np.roll(np.fft.fft2(image), POSITION, axis=(0, 1))
        return np.fft.ifft2(spectrum * (np.hypot(k[:, None], k) <= PIXELS))

    found = benchmark(lambda: side_band(images[0].numpy()) / side_band(images[1].numpy()))
    assert error(found, truth) < 1e-3
