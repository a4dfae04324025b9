"""Images of a wave through aberrations and envelopes, beside abTEM's."""

import abtem
import numpy as np
import pytest
import torch

from exitwave import optics
from exitwave.simulate import imaging

pytestmark = [
    pytest.mark.oracle,
    # abTEM's own use of NumPy and Dask.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.mark.parametrize("defocus", [-4e3, 2.5e3])
def test_intensity_of_an_asymmetric_wave(defocus):
    # No symmetry at all: a mirrored, transposed or conjugated image would differ.
    n, step, energy = 64, 2.0, 200e3
    y, x = np.mgrid[:n, :n] * step
    phase = 0.8 * np.exp(-((x - 40) ** 2 / 300 + (y - 70) ** 2 / 900)) + 0.4 * np.sin(
        2 * np.pi * 3 * x / (n * step)
    )
    wave = np.exp(1j * phase) * (1 - 0.2 * np.exp(-((x - 80) ** 2 + (y - 30) ** 2) / 200))
    transfer = optics.transfer_function(
        (n, n), step, energy=energy, dtype=torch.complex128, focal_spread=50.0, angular_spread=1e-4,
        aberrations=optics.Aberrations(C10=-defocus, C12=300.0, phi12=0.4, C30=1e7),
    )  # fmt: skip
    ours = imaging.images(torch.as_tensor(wave), transfer[None])[0].numpy()

    # abTEM's arrays are (x, y), its widths 1/e half widths, its angular spread in mrad.
    with abtem.config.set({"precision": "float64"}):
        waves = abtem.Waves(np.ascontiguousarray(wave.T), energy=energy, sampling=step)
        ctf = abtem.CTF(
            energy=energy, defocus=defocus, C12=300.0, phi12=0.4, Cs=1e7,
            focal_spread=50.0 * 2**0.5, angular_spread=0.1 * 2**0.5,
        )  # fmt: skip
        theirs = waves.apply_ctf(ctf, max_batch=1).intensity().compute(progress_bar=False).array.T
    assert np.ptp(theirs) > 0.1
    assert np.abs(ours - theirs).max() < 1e-5
    assert np.abs(ours - theirs.T).max() > 1e-2
    assert np.abs(ours[:, ::-1] - theirs).max() > 1e-2
