"""Memory and time of direct methods and the released network, 128 x 128 patterns of 256 x 256 pixels.

Run with ``make bench``. The file has 2 GiB (16-bit counts). Each command runs as a process of its own;
``peak_gib`` in its ``extra_info`` is the largest memory that it held, pages of the file included
(bar: 24 GiB).
"""

import os
import subprocess
import sys

import numpy as np
import pytest

from exitwave import optics, records

LINES, SIZE, STEP, ENERGY, ANGLE, RADIUS, DEFOCUS = 128, 256, 1.0, 300e3, 10e-3, 40, 1500.0
PIXEL = ANGLE / RADIUS
GIVEN = [f"--energy={ENERGY}", f"--step={STEP}", f"--semiangle={ANGLE}", "--rotation=0"]


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """A bright disk whose every pixel sees one image, displaced by defocus as a weak object's would be.

    Before they meet, rays that come down at an angle k pass the specimen at minus k times the defocus.
    """
    generator = np.random.default_rng(0)
    fy, fx = np.meshgrid(*(np.fft.fftfreq(LINES, STEP),) * 2, indexing="ij")
    waves = np.fft.fft2(generator.normal(size=(LINES, LINES))) * np.exp(-(fy**2 + fx**2) / (2 * 0.1**2))
    waves /= np.fft.ifft2(waves).real.std()
    ky, kx = np.indices((SIZE, SIZE)) - SIZE // 2
    inside = np.nonzero(np.hypot(ky, kx) <= RADIUS)
    seen = np.empty((LINES, LINES, len(inside[0])), np.uint16)
    for i, place in enumerate(zip(*inside, strict=True)):
        y, x = (DEFOCUS * PIXEL * each[place] for each in (ky, kx))
        image = np.fft.ifft2(waves * np.exp(-2j * np.pi * (fy * y + fx * x))).real
        seen[..., i] = np.round(200 * (1 + 0.1 * image).clip(0))
    path = tmp_path_factory.mktemp("scan") / "a.npy"
    patterns = np.lib.format.open_memmap(path, "w+", np.uint16, (LINES, LINES, SIZE, SIZE))
    for row, line in zip(patterns, seen, strict=True):
        row[:, inside[0], inside[1]] = line
    patterns.flush()
    del patterns
    yield path
    path.unlink()


@pytest.mark.parametrize("method", ["dpc", "parallax", "ssb", "network"])
def test_methods(benchmark, scan, tmp_path, method):
    output = tmp_path / "o.nc"
    command = [sys.executable, "-m", "exitwave.cli", "retrieve", method, str(scan), "-o", str(output), *GIVEN]
    command += [f"--defocus={DEFOCUS}"] if method != "dpc" else []
    peaks = []

    def run():
        process = subprocess.Popen(command)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        peaks.append(used.ru_maxrss / 2**20)

    benchmark.pedantic(run, rounds=1)
    benchmark.extra_info["peak_gib"] = max(peaks)
    found = records.load(output, "phase")
    assert found["phase"].shape[0] >= LINES
    assert np.isfinite(found["phase"].values).all()
    if method == "parallax":
        near = 0.5 * optics.wavelength(ENERGY) / ANGLE**2
        assert float(found["retrieved_defocus"]) == pytest.approx(DEFOCUS, abs=near)
