"""Centres of mass and their integral beside abTEM's, of patterns that abTEM simulates."""

import abtem
import numpy as np
import pytest
import torch

from exitwave.retrieve import scan_images

pytestmark = [
    pytest.mark.oracle,
    # abTEM's own use of NumPy and Dask.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

ENERGY, STEP, N, ANGLE = 80e3, 0.2, 64, 0.022


def test_centres_and_their_integral():
    y, x = np.mgrid[:N, :N] * STEP
    potential = sum(
        height * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 1.2)
        for height, cx, cy in ((90, 4.0, 7.5), (60, 8.5, 5.0), (40, 6.0, 9.0))
    )
    with abtem.config.set({"precision": "float64"}):
        thing = abtem.PotentialArray(
            np.ascontiguousarray(potential.T)[None], slice_thickness=1.0, sampling=STEP
        )
        beam = abtem.Probe(
            energy=ENERGY, semiangle_cutoff=1e3 * ANGLE, gpts=(N, N), extent=(N * STEP,) * 2,
            aberrations={"C10": -60.0, "C12": 30.0, "phi12": 0.6},
        )  # fmt: skip
        scan = abtem.GridScan(start=(0, 0), end=(N * STEP, N * STEP), gpts=(16, 16))
        far = beam.multislice(thing, scan=scan).diffraction_patterns(max_angle=None, fftshift=True)
        far = far.compute(progress_bar=False)
        centres = far.center_of_mass(units="1/Å")
        integral = centres.integrate_gradient()
    # abTEM's axes are (x, y), its centres x + iy.
    ours = torch.as_tensor(np.fft.ifftshift(far.array, (2, 3)).transpose(1, 0, 3, 2).copy())
    found = scan_images.centre_of_mass(ours, STEP)
    theirs = np.stack([centres.array.imag.T, centres.array.real.T], -1)
    scale = float(found.abs().max())
    assert np.abs(found.numpy() - theirs).max() < 1e-6 * scale
    assert np.abs(found.numpy() - theirs[..., ::-1]).max() > 0.5 * scale
    phase = scan_images.integrate(found, N * STEP / 16).numpy()
    # abTEM integrates centres in 1/Å; a phase, rad, has 2π times them as its slope.
    other = 2 * np.pi * (integral.array.T - integral.array.mean())
    assert np.abs(phase - other).max() < 1e-6 * np.abs(phase).max()
