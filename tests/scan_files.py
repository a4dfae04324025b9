"""A 4D-STEM record of a known object, its detector turned against the scan, for the tests of commands."""

import numpy as np
import torch

from exitwave import optics, records
from exitwave.simulate import scanning

ENERGY, PIXEL, SIZE, ANGLE, STEP = 80e3, 0.25, 48, 0.03, 0.8
FREQUENCY = 1 / (SIZE * PIXEL)


def phase(y, x, shape, strength):
    """Return peaks of different height, which fill a scan and look like none of its mirror images, rad."""
    rng = np.random.default_rng(0)
    total = np.zeros(np.broadcast(y, x).shape)
    for _ in range(2 * max(shape)):
        cy, cx = (rng.uniform(-4, n * STEP + 4) for n in shape)
        width, height = rng.uniform(0.7, 1.2), rng.uniform(0.3, 1.0)
        total += height * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * width**2))
    return strength * total


def record(shape, *, defocus, rotation=0.0, transposed=False, strength=0.05, dose=1e6):
    """Return counts without noise; ``rotation`` turns vectors of the detector into those of the scan, rad."""
    lines = scanning.raster(shape, STEP, rotation=rotation)
    where, field = scanning.framed(lines, PIXEL, (SIZE, SIZE))
    # Where pixels of the field are in the scan, whose first position is at 0.
    rows, columns = (PIXEL * np.arange(n) for n in field)
    y, x = np.meshgrid(rows - float(where[0, 0]), columns - float(where[0, 1]), indexing="ij")
    c, s = np.cos(rotation), np.sin(rotation)
    values = phase(c * y + s * x, c * x - s * y, shape, strength)
    beam = scanning.probe(
        (SIZE, SIZE), PIXEL, energy=ENERGY, semiangle=ANGLE,
        aberrations=optics.Aberrations.from_defocus(defocus),
    )  # fmt: skip
    thing = torch.polar(torch.ones(field), torch.as_tensor(values).float())[None]
    patterns = torch.cat([scanning.patterns(thing, beam, some, PIXEL) for some in where.split(64)])
    patterns = patterns.mT if transposed else patterns
    centred = torch.fft.fftshift(patterns.reshape(*shape, SIZE, SIZE), dim=(2, 3))
    ticks = (np.arange(SIZE) - SIZE // 2) * FREQUENCY
    return records.make_record(
        "diffraction4d", (dose * centred).float().numpy(), energy=ENERGY, scan_y=np.arange(shape[0]) * STEP,
        scan_x=np.arange(shape[1]) * STEP, ky=ticks, kx=ticks,
    )  # fmt: skip


def correlation(one, two):
    """Return the correlation of two images."""
    return float(np.corrcoef(np.ravel(one), np.ravel(two))[0, 1])
