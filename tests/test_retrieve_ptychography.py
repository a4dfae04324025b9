"""``exitwave retrieve ptychography``, against simulated patterns of a known phase."""

import math

import numpy as np
import pytest
import torch
from scan_files import ANGLE, ENERGY, PIXEL, SIZE, correlation, phase, record

from exitwave import optics, records
from exitwave.cli import ptychography as command

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPE, DEFOCUS, ROTATION, STRENGTH = (16, 18), 120.0, 0.5, 0.3
# By so much of a defocus χ changes by 0.3 rad at the edge of the aperture: it is as good as the right one.
NEAR = 0.1 * optics.wavelength(ENERGY) / ANGLE**2
KNOWN = ("--defocus", "12nm", "--rotation", str(ROTATION), "--batch", "16")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    found = record(SHAPE, defocus=DEFOCUS, rotation=ROTATION, strength=STRENGTH)
    return records.save(found, folder / "scan.nc")


def run(exitwave, file, folder, *more, preview=False):
    options = (*more, *(() if preview else ("--no-preview",)))
    status, said, errors = exitwave("retrieve", "ptychography", file, "-o", folder / "o.nc", *options)
    assert status == 0, errors
    return records.load(folder / "o.nc", "wave"), said, errors


def known(found):
    """Return the phase that a record should hold, where its pixels are."""
    y, x = np.meshgrid(found["y"], found["x"], indexing="ij")
    return phase(y, x, SHAPE, STRENGTH)


def told_apart(found, least):
    """Hold the phase to the known one; a conjugated, mirrored or turned one would fail."""
    truth, values = known(found), np.angle(records.from_parts(found["wave"]))
    inner = (slice(8, -8), slice(8, -8))  # pixels beside the first and last positions are lit from one side
    assert correlation(values[inner], truth[inner]) > least
    for wrong in (truth[::-1], truth[:, ::-1], truth[::-1, ::-1]):
        assert correlation(values[inner], wrong[inner]) < 0.5
    return values[inner], truth[inner]


class TestPhase:
    def test_known_geometry(self, exitwave, file, tmp_path):
        found, said, errors = run(exitwave, file, tmp_path, *KNOWN, "--epochs", "20", preview=True)
        values, truth = told_apart(found, 0.97)
        # Its size, too: what is left of the slowest waves is the ramp and constant that nobody can tell.
        assert np.polyfit(truth.ravel(), values.ravel(), 1)[0] == pytest.approx(1, abs=0.1)
        assert records.sampling_of(found) == pytest.approx((PIXEL, PIXEL))
        # Without absorption the object changes the phase only.
        np.testing.assert_allclose(np.abs(records.from_parts(found["wave"])), 1, atol=1e-5)
        loss = found["loss"].values
        assert len(loss) == 20
        assert loss[-1] < 0.02 * loss[0]
        # The probe is what made the patterns: overlap of both but for a factor.
        beam = found["probe"].values[0, 0] + 1j * found["probe"].values[0, 1]
        from exitwave.simulate import scanning

        lens = optics.Aberrations.from_defocus(DEFOCUS)
        true = scanning.probe((SIZE, SIZE), PIXEL, energy=ENERGY, semiangle=ANGLE, aberrations=lens)
        true = torch.fft.fftshift(true).numpy()
        overlap = abs((beam.conj() * true).sum()) / np.linalg.norm(beam) / np.linalg.norm(true)
        assert overlap > 0.98
        assert "288 patterns of 48 x 48 pixels take" in errors
        assert "started at a defocus of +12 nm" in said
        made = records.provenance_of(found)["parameters"]
        assert (made["epochs"], made["defocus"], made["seed"]) == (20, DEFOCUS, 0)
        assert (tmp_path / "o.png").read_bytes()[:4] == b"\x89PNG"

    def test_starts_from_parallax(self, exitwave, file, tmp_path):
        found, _, errors = run(exitwave, file, tmp_path, "--epochs", "12", "--batch", "16")
        assert float(found["defocus_at_start"]) == pytest.approx(DEFOCUS, abs=NEAR)
        assert float(found["rotation"]) == pytest.approx(ROTATION, abs=math.radians(2))
        told_apart(found, 0.9)
        assert "are those that align the bright-field images" in found.attrs["warnings"]
        assert "align the bright-field images" in errors

    def test_ranges_are_searched(self, exitwave, file, tmp_path):
        ranges = ("--defocus", "6nm:14nm", "--rotation", "10deg:50deg")
        found, _, _ = run(exitwave, file, tmp_path, *ranges, "--epochs", "2", "--crop", "0:10,0:10")
        # The last grid has steps of 0.5 nm and 2.5°: one of them is allowed.
        assert float(found["defocus_at_start"]) == pytest.approx(DEFOCUS, abs=5)
        assert math.degrees(float(found["rotation"])) == pytest.approx(math.degrees(ROTATION), abs=2.5)
        assert int(found["transposed"]) == 0

    def test_epie(self, exitwave, file, tmp_path):
        found, _, _ = run(exitwave, file, tmp_path, *KNOWN[:4], "--method", "epie", "--epochs", "6")
        told_apart(found, 0.9)

    def test_several_slices_modes_and_free_positions(self, exitwave, file, tmp_path):
        more = ("--slices", "2", "--slice-thickness", "1nm", "--modes", "2", "--free-positions")
        found, said, _ = run(exitwave, file, tmp_path, *KNOWN, *more, "--epochs", "12", preview=True)
        # 1 nm is far within the depth of λ/α² = 4.6 nm: the slices share one phase.
        told_apart(found, 0.9)
        assert found["object"].shape[:2] == (2, 2)
        assert float(found["slice_thickness"]) == 10
        assert float(found["share"].sum()) == pytest.approx(1)
        assert float(found["share"][0]) > 0.9  # one mode made the patterns
        assert "the wave is the product of 2 slices" in said
        moved = (
            found["position"].values - run(exitwave, file, tmp_path, *KNOWN, "--epochs", "1")[0]["position"]
        )
        # They were right at the start: none strays by half of a pixel.
        assert 0 < float(np.abs(moved).max()) < 0.5 * PIXEL

    def test_goes_on(self, exitwave, file, tmp_path):
        first, _, _ = run(exitwave, file, tmp_path, *KNOWN, "--epochs", "4")
        (tmp_path / "o.nc").rename(tmp_path / "first.nc")
        start = ("--start", tmp_path / "first.nc", "--epochs", "3", "--batch", "16")
        found, _, _ = run(exitwave, file, tmp_path, *start)
        np.testing.assert_array_equal(found["loss"][:4], first["loss"])
        assert float(found["loss"][-1]) < float(first["loss"][-1])
        assert float(found["rotation"]) == pytest.approx(ROTATION)
        for options, named in (
            (
                ("--crop", "0:9,0:9"),
                "the start has 288 positions and probes of 48 pixels, the scan 81 and 48",
            ),
            (("--modes", "3"), "the start has 1 modes, not 3"),
        ):
            status, _, errors = exitwave(
                "retrieve", "ptychography", file, "-o", tmp_path / "p.nc", *start, *options
            )
            assert status == 2
            assert named in errors.splitlines()[-1]
        status, _, errors = exitwave(
            "retrieve", "ptychography", file, "-o", tmp_path / "first.nc", "--start", tmp_path / "first.nc"
        )
        assert status == 2
        assert "may not replace it" in errors
        wave = records.wave(np.ones((4, 4), complex), sampling=1.0, energy=ENERGY)
        other = records.save(wave, tmp_path / "other.nc")
        status, _, errors = exitwave(
            "retrieve", "ptychography", file, "-o", tmp_path / "p.nc", "--start", other
        )
        assert status == 2
        assert "no record of ptychography" in errors.splitlines()[-1]

    def test_what_does_not_fit_is_said(self, exitwave, file, tmp_path):
        # A probe of 2 · 20 nm · 30 mrad = 12 Å fills the field of a pattern, of 12 Å.
        wrong = ("--defocus", "-20nm", "--rotation", "-1.5", "--method", "epie", "--epochs", "3")
        found, _, errors = run(exitwave, file, tmp_path, *wrong)
        assert "nm wide by its defocus, the field of a pattern 1.2 nm: it does not fit" in errors
        grown = float(found["loss"][-1]) > float(found["loss"][0])
        assert ("the loss has grown" in errors) == grown

    def test_fewer_pixels(self, exitwave, file, tmp_path):
        found, _, errors = run(exitwave, file, tmp_path, *KNOWN, "--max-angle", "50mrad", "--epochs", "12")
        assert "patterns of 30 x 30 pixels" in errors
        assert records.sampling_of(found)[0] == pytest.approx(PIXEL * SIZE / 30)
        told_apart(found, 0.9)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--method", "best"), "unknown method 'best': use one of gradient, epie"),
        (("--loss", "l1"), "unknown loss 'l1' of ptychography: use poisson or amplitude"),
        (("--method", "epie", "--modes", "2"), "epie takes one slice, one mode"),
        (("--slices", "2"), "2 slices are how far apart? give --slice-thickness"),
        (("--slices", "2", "--slice-thickness", "-1"), "slice thickness -1 Å is not positive"),
        (("--defocus", "20nm:10nm"), "defocus '20nm:10nm': give the smaller one first"),
        (("--defocus", "x"), "defocus 'x' is not a number of Å"),
        (("--max-angle", "5mrad"), "do not hold it: use a larger angle"),
        (("--start", "nowhere.nc"), "nowhere.nc: no such file"),
    ],
)
def test_what_cannot_be_is_one_line(exitwave, file, tmp_path, options, named):
    status, output, errors = exitwave("retrieve", "ptychography", file, "-o", tmp_path / "o.nc", *options)
    assert (status, output) == (2, "")
    assert named in errors
    assert len(errors.splitlines()) == 1
    assert not (tmp_path / "o.nc").exists()


@pytest.mark.parametrize(("free", "status"), [(2**21, 2), (2**22, 0), (None, 0)])
def test_memory_is_weighed_before(exitwave, file, tmp_path, monkeypatch, free, status):
    # 288 patterns of 48² pixels in float32 are 2.65 MB.
    monkeypatch.setattr(command, "free_memory", lambda: free)
    found, _, errors = exitwave(
        "retrieve", "ptychography", file, "-o", tmp_path / "o.nc", *KNOWN, "--epochs", "1", "--no-preview"
    )
    assert found == status
    assert ("--bin 2" in errors) == (free is not None)
    assert "patterns of 48 x 48 pixels" in errors


def test_free_memory_is_that_of_a_computer():
    found = command.free_memory()
    assert found is None or 2**20 < found < 2**50
