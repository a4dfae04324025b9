"""4D-STEM patterns beside abTEM's: an aberrated probe through two slices without symmetry."""

import abtem
import numpy as np
import pytest
import torch

from exitwave import optics
from exitwave.simulate import scanning

pytestmark = [
    pytest.mark.oracle,
    # abTEM's own use of NumPy and Dask.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

ENERGY, STEP, N, ANGLE, THICKNESS = 80e3, 0.2, 64, 0.022, 6.0


def potential():
    """Return projected potentials (slice, y, x), V Å, smooth enough for abTEM's antialiasing."""
    y, x = np.mgrid[:N, :N] * STEP
    first = 900 * np.exp(-((x - 5) ** 2 + (y - 7.5) ** 2) / 1.2) + 400 * np.exp(
        -((x - 8) ** 2 / 2 + (y - 4) ** 2)
    )
    second = 600 * np.exp(-((x - 6.5) ** 2 / 0.9 + (y - 6) ** 2 / 2))
    return np.stack([first, second])


def test_patterns_of_an_aberrated_probe():
    where = np.array([[5.03, 6.11], [7.4, 4.95], [3.2, 9.27]])  # y, x
    lens = optics.Aberrations(C10=-60.0, C12=30.0, phi12=0.6, C21=2e3, phi21=0.4)
    layers = torch.as_tensor(potential())
    slices = torch.polar(torch.ones_like(layers), optics.interaction_constant(ENERGY) * layers)
    probe = scanning.probe(
        (N, N), STEP, energy=ENERGY, semiangle=ANGLE, aberrations=lens, dtype=torch.complex128
    )
    free = optics.propagator((N, N), STEP, THICKNESS, ENERGY, dtype=torch.complex128)
    ours = scanning.patterns(slices, probe, torch.as_tensor(where), STEP, propagator=free).numpy()

    with abtem.config.set({"precision": "float64"}):
        thing = abtem.PotentialArray(
            np.ascontiguousarray(potential().transpose(0, 2, 1)), slice_thickness=THICKNESS, sampling=STEP
        )
        beam = abtem.Probe(
            energy=ENERGY, semiangle_cutoff=1e3 * ANGLE, gpts=(N, N), extent=(N * STEP,) * 2,
            aberrations={"C10": -60.0, "C12": 30.0, "phi12": 0.6, "C21": 2e3, "phi21": 0.4},
        )  # fmt: skip
        waves = beam.multislice(thing, scan=abtem.CustomScan(where[:, ::-1]))
        far = waves.diffraction_patterns(max_angle=None, fftshift=False).compute(progress_bar=False)
    theirs = far.array.transpose(0, 2, 1)
    # What abTEM's antialiasing takes off is small for this potential; over the same sum.
    assert theirs.sum((1, 2)) == pytest.approx(theirs[0].sum(), rel=1e-3)
    theirs = theirs / theirs.sum((1, 2), keepdims=True)
    scale = theirs.max()
    assert np.abs(ours - theirs).max() < 0.01 * scale
    assert np.abs(ours.transpose(0, 2, 1) - theirs).max() > 0.1 * scale
    assert np.abs(ours[:, ::-1, ::-1] - theirs).max() > 0.1 * scale
