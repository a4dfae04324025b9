"""``exitwave retrieve dpc`` and the layers below it, against simulated patterns of a known phase."""

import json
import math

import h5py
import numpy as np
import pytest
import scan_files
import torch
import xarray as xr

from exitwave import optics, records
from exitwave.errors import InputError
from exitwave.readers.bright_disk import find_disk
from exitwave.readers.scans import read_scan
from exitwave.retrieve import scan_dpc, scan_images, scan_pass
from exitwave.simulate import scanning

pytestmark = pytest.mark.usefixtures("one_thread")

ENERGY, PIXEL, SIZE, ANGLE, SHAPE = 80e3, 0.25, 32, 0.03, (16, 16)
STEP = PIXEL * SIZE / SHAPE[0]  # the scan fills the field, which is periodic
FREQUENCY = 1 / (SIZE * PIXEL)
DOSE = 1e6


def smooth(seed=0, strength=0.3):
    """Return a periodic phase without symmetry, rad."""
    generator = torch.Generator().manual_seed(seed)
    field = torch.randn(SIZE, SIZE, generator=generator, dtype=torch.float64)
    ky, kx = optics.frequency_grid((SIZE, SIZE), PIXEL)
    spectrum = torch.fft.fft2(field) * (ky**2 + kx**2 < 0.4**2)
    spectrum[0, 0] = 0
    found = torch.fft.ifft2(spectrum).real
    return found * strength / found.std()


@pytest.fixture(scope="module")
def truth():
    """Patterns with frequency 0 in the middle, as files have them, and the phase that iCOM gives: blurred."""
    phase = smooth()
    beam = scanning.probe((SIZE, SIZE), PIXEL, energy=ENERGY, semiangle=ANGLE, dtype=torch.complex128)
    line = torch.arange(SHAPE[0], dtype=torch.float64) * STEP
    where = torch.stack(torch.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)
    found = scanning.patterns(torch.polar(torch.ones_like(phase), phase)[None], beam, where, PIXEL)
    weight = torch.fft.fft2(beam.abs().square()).conj()
    blurred = torch.fft.ifft2(torch.fft.fft2(phase) * weight).real[:: SIZE // SHAPE[0], :: SIZE // SHAPE[1]]
    patterns = torch.fft.fftshift(found.reshape(*SHAPE, SIZE, SIZE), dim=(-2, -1))
    return (DOSE * patterns).float().numpy(), blurred.numpy()


# float32 counts; and orders of scattering that leave the pattern (as in tests/physics/test_scan_images.py).
EXACT = 2e-3


def record_of(patterns):
    ticks = (np.arange(SIZE) - SIZE // 2) * FREQUENCY
    return records.make_record(
        "diffraction4d", patterns, energy=ENERGY, scan_y=np.arange(SHAPE[0]) * STEP,
        scan_x=np.arange(SHAPE[1]) * STEP, ky=ticks, kx=ticks,
    )  # fmt: skip


@pytest.fixture
def file(truth, tmp_path):
    return records.save(record_of(truth[0]), tmp_path / "scan.nc")


@pytest.fixture
def array(truth, tmp_path):
    np.save(tmp_path / "scan.npy", truth[0])
    return tmp_path / "scan.npy"


KNOWN = ("--energy", "80keV", "--step", f"{STEP}A", "--detector-pixel", f"{FREQUENCY}/A")


class TestMethod:
    def test_blocks_give_what_all_at_once_gives(self, file, truth):
        scan = read_scan(file)
        found = scan_pass.see(scan, find_disk(scan.summary().total))
        patterns = torch.fft.ifftshift(torch.from_numpy(truth[0]), dim=(-2, -1)).double()
        expected = scan_images.centre_of_mass(patterns, PIXEL)
        torch.testing.assert_close(found.centres, expected - expected.mean((0, 1)), atol=1e-6, rtol=0)
        shares = found.bright + found.dark
        assert 0.9 < float(shares.min()) <= float(shares.max()) < 1 + 1e-5

    def test_a_line_is_refused(self, file):
        scan = read_scan(file).cropped((0, 1), (0, 16))
        with pytest.raises(InputError, match="is a line"):
            scan_dpc.retrieve(scan, find_disk(scan.summary().total))


class TestCommand:
    def test_phase_of_a_record(self, exitwave, file, truth, tmp_path):
        status, said, errors = exitwave(
            "retrieve", "dpc", file, "-o", tmp_path / "object.nc", "--rotation", "0"
        )
        assert (status, errors) == (0, "")
        assert said.splitlines()[:2] == [str(tmp_path / "object.nc"), str(tmp_path / "object.png")]
        found = records.load(tmp_path / "object.nc", "phase")
        expected = truth[1] - truth[1].mean()
        np.testing.assert_allclose(found["phase"], expected, atol=EXACT)
        # A conjugated or a mirrored result would be seen.
        for wrong in (-expected, expected.T, expected[::-1]):
            assert np.abs(found["phase"].values - wrong).max() > 0.1
        assert float(found["curl"]) < 1e-4
        assert records.sampling_of(found) == pytest.approx((STEP, STEP))
        assert float(found["energy"]) == ENERGY
        np.testing.assert_allclose(found["mean_pattern"], truth[0].mean((0, 1)), rtol=1e-5)
        made = records.provenance_of(found)
        assert made["parameters"]["files"] == ["scan.nc"]
        assert made["parameters"]["rotation"] == 0.0
        assert (tmp_path / "object.png").read_bytes()[:4] == b"\x89PNG"

    @pytest.mark.parametrize("angle", [0.0, 25.0, -70.0])
    def test_an_unknown_rotation_is_found_and_told(self, exitwave, truth, tmp_path, angle):
        """Patterns on a detector that is turned: by a rotation of the scan about it, which is exact."""
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        beam = scanning.probe((SIZE, SIZE), PIXEL, energy=ENERGY, semiangle=ANGLE, dtype=torch.complex128)
        line = (torch.arange(24, dtype=torch.float64) - 12) * STEP
        y, x = torch.meshgrid(line, line, indexing="ij")
        phase = smooth()
        # Axes of the scan are turned against those of object and detector: scan vector = R(angle) detector.
        where = torch.stack([cos * y - sin * x, sin * y + cos * x], -1).reshape(-1, 2)
        patterns = scanning.patterns(torch.polar(torch.ones_like(phase), phase)[None], beam, where, PIXEL)
        counts = DOSE * torch.fft.fftshift(patterns.reshape(24, 24, SIZE, SIZE), dim=(-2, -1))
        np.save(tmp_path / "a.npy", counts.float().numpy())
        status, _, errors = exitwave(
            "retrieve", "dpc", tmp_path / "a.npy", "-o", tmp_path / "o.nc", *KNOWN, "--no-preview"
        )
        assert status == 0
        # Nothing in a random phase tells its sign.
        assert "the detector is turned by" in errors
        assert "180° from it is not clear" in errors
        found = math.degrees(float(records.load(tmp_path / "o.nc")["rotation"]))
        # The field is no period of the scan: its edges count as curl.
        assert abs(math.remainder(found - angle, 180.0)) < 5.0

    def test_peaks_tell_sign_and_handedness(self, exitwave, tmp_path):
        """A detector whose axes are exchanged, of a scan across peaks, of which none is a hole."""
        shape = (20, 24)
        scan = scan_files.record(shape, defocus=0.0, rotation=-2.0, transposed=True)
        path = records.save(scan, tmp_path / "scan.nc")
        status, said, errors = exitwave("retrieve", "dpc", path, "-o", tmp_path / "o.nc", "--no-preview")
        assert status == 0
        assert "with its axes exchanged, then turned by -114" in errors
        assert "the sign of the phase excludes the opposite angle" in errors
        assert "its axes exchanged before" in said
        found = records.load(tmp_path / "o.nc")
        assert int(found["transposed"]) == 1
        assert math.degrees(float(found["rotation"])) == pytest.approx(math.degrees(-2.0), abs=1)
        assert found.attrs["warnings"] == errors.strip().removeprefix("exitwave: warning: ")
        y, x = np.meshgrid(found["y"], found["x"], indexing="ij")
        truth, inner = scan_files.phase(y, x, shape, 0.05), (slice(3, -3), slice(3, -3))
        assert scan_files.correlation(found["phase"].values[inner], truth[inner]) > 0.8

    def test_a_small_scan_does_not_tell_its_rotation(self, exitwave, file, tmp_path):
        command = ("retrieve", "dpc", file, "-o", tmp_path / "o.nc", "--crop", "0:8,0:9", "--no-preview")
        status, _, errors = exitwave(*command)
        assert status == 0
        assert "orientation of the detector is not known, 0 is used: give --rotation" in errors
        assert "curl" not in records.load(tmp_path / "o.nc")

    def test_a_wrong_rotation_or_axis_is_warned_of(self, exitwave, file, tmp_path):
        run = ("retrieve", "dpc", file, "-o", tmp_path / "o.nc", "--no-preview", "--rotation")
        _, _, errors = exitwave(*run, "60deg")
        said = errors.replace("-0.0 deg", "0.0 deg")
        assert "rotation 60.0 deg leaves 75 % curl in the centres of mass, 0.0 deg 0 %: check it" in said
        _, _, errors = exitwave(*run, "0", "--transpose")
        assert "check --transpose" in errors

    def test_other_formats_and_options_give_the_same(self, exitwave, array, truth, tmp_path):
        expected = truth[1] - truth[1].mean()
        turned = np.flip(truth[0].swapaxes(-1, -2), -1)
        with h5py.File(tmp_path / "turned.h5", "w") as file:
            file["a"], file["b"] = turned.reshape(-1, SIZE, SIZE), np.ones((3, 3, 3))
        truth[0].astype(">f8").tofile(tmp_path / "raw.bin")
        turning = ("--transpose", "--flip-y", "--dataset", "a", "--shape", "16x16")
        raw = ("--dtype", ">f8", "--detector-shape", "32x32", "--shape", "16x16")
        for data, more in (("scan.npy", ()), ("turned.h5", turning), ("raw.bin", raw)):
            out = tmp_path / f"{data}.nc"
            status, _, errors = exitwave(
                "retrieve",
                "dpc",
                tmp_path / data,
                "-o",
                out,
                *KNOWN,
                *more,
                "--rotation",
                "0",
                "--no-preview",
            )
            assert (status, errors) == (0, "")
            # A flip of an even number of pixels moves the middle by one, which the mean takes away.
            np.testing.assert_allclose(records.load(out)["phase"], expected, atol=2 * EXACT)

    def test_the_disk_is_a_scale(self, exitwave, array, truth, tmp_path):
        out = tmp_path / "o.nc"
        status, _, errors = exitwave(
            "retrieve", "dpc", array, "-o", out, *KNOWN[:4], "--semiangle", "30mrad", "--rotation", "0"
        )
        assert status == 0
        assert "pixel of the detector from the bright disk" in errors
        expected = truth[1] - truth[1].mean()
        found = records.load(out)["phase"].values
        # Half a diagonal of a pixel, of the radius of the disk.
        radius = ANGLE / optics.wavelength(ENERGY) / FREQUENCY
        assert (found * expected).sum() / (expected**2).sum() == pytest.approx(1, abs=math.sqrt(0.5) / radius)

    def test_bins_and_crops(self, exitwave, file, truth, tmp_path):
        out = tmp_path / "o.nc"
        command = ("retrieve", "dpc", file, "-o", out, "--rotation", "0", "--no-preview")
        assert exitwave(*command, "--bin", "2")[0] == 0
        expected = truth[1] - truth[1].mean()
        np.testing.assert_allclose(records.load(out)["phase"], expected, atol=EXACT)
        assert exitwave(*command, "--crop", "2:12,0:7")[0] == 0
        assert records.load(out)["phase"].shape == (10, 7)

    def test_bad_pixels_are_filled(self, exitwave, truth, tmp_path):
        counts = truth[0].copy()
        counts[..., 3, 28] = 30 * counts.max()
        counts[5, 5, 2, 2] = np.nan
        np.save(tmp_path / "a.npy", counts)
        mask = np.zeros((SIZE, SIZE))
        mask[2, 2] = 1
        np.save(tmp_path / "mask.npy", mask)
        out = tmp_path / "o.nc"
        command = (
            "retrieve",
            "dpc",
            tmp_path / "a.npy",
            "-o",
            out,
            *KNOWN,
            "--rotation",
            "0",
            "--no-preview",
        )
        status, _, errors = exitwave(*command)
        assert status == 2
        assert "1 values are not finite" in errors
        assert "give --bad-pixels" in errors
        status, _, errors = exitwave(*command, "--bad-pixels", tmp_path / "mask.npy")
        assert status == 0
        assert "1 dead or hot pixels" in errors
        np.testing.assert_allclose(records.load(out)["phase"], truth[1] - truth[1].mean(), atol=EXACT)
        assert records.provenance_of(records.load(out))["parameters"]["bad_pixels"] == 2

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ((), "energy, step, pixel not found in the file: give --energy (for example 300keV); --step"),
            (("--energy", "80keV"), "step, pixel not found"),
            (("--shape", "3"), "shape '3' is not two whole numbers: write YxX"),
            (("--crop", "5"), "crop '5' is not rows and columns"),
            (("--crop", "0:99,0:3"), "rows 0:99 are not within 0:16"),
            ((*KNOWN, "--bin", "5"), "bin 5 does not divide (32, 32) pixels: use one of 1, 2, 4, 8, 16, 32"),
            (("--step", "x"), "step 'x' is not a number of Å"),
            (("--detector-pixel", "2mm"), "detector pixel '2mm' is not a number of rad"),
            (("--rotation", "nan"), "rotation 'nan' is not a number of rad"),
            (("--negative", "what"), "use refuse, zero or keep"),
            (("--dtype", "u1"), "pass --dtype ... and --detector-shape (y, x)"),
            (("--bad-pixels", "nowhere.npy"), "nowhere.npy: no such file"),
        ],
    )
    def test_what_cannot_be_is_one_line(self, exitwave, array, tmp_path, options, said):
        status, output, errors = exitwave("retrieve", "dpc", array, "-o", tmp_path / "o.nc", *options)
        assert (status, output) == (2, "")
        assert said in errors
        assert len(errors.splitlines()) == 1
        assert not (tmp_path / "o.nc").exists()

    def test_negative_counts_name_the_option(self, exitwave, truth, tmp_path):
        np.save(tmp_path / "a.npy", truth[0] - 1e-3)
        command = ("retrieve", "dpc", tmp_path / "a.npy", "-o", tmp_path / "o.nc", *KNOWN)
        assert "or pass --negative zero" in exitwave(*command)[2]
        assert exitwave(*command, "--negative", "zero", "--no-preview")[0] == 0

    def test_the_data_are_not_written_over(self, exitwave, file, array):
        status, _, errors = exitwave("retrieve", "dpc", file, "-o", file)
        assert status == 2
        assert "may not replace it" in errors
        assert records.load(file, "diffraction4d")["counts"].shape[:2] == SHAPE

    def test_a_contradiction_with_the_disk(self, exitwave, file, tmp_path):
        command = ("retrieve", "dpc", file, "-o", tmp_path / "o.nc", "--no-preview", "--rotation", "0")
        assert "but semi-angle and pixel say" in exitwave(*command, "--semiangle", "60mrad")[2]

    def test_help_has_all_options(self, exitwave):
        status, said, _ = exitwave("retrieve", "dpc", "--help")
        assert status == 0
        for option in ("--energy", "--semiangle", "--step", "--defocus", "--crop", "--no-mend", "--output"):
            assert option in said

    @pytest.mark.external
    def test_rotavirus(self, exitwave, external_data, tmp_path):
        path = external_data / "4dstem_rotavirus" / "rotavirus_34x127x96x96_uint8.h5"
        if not path.exists():
            pytest.skip("no 4dstem_rotavirus in EXITWAVE_EXTERNAL_DATA")
        status, said, errors = exitwave("retrieve", "dpc", path, "-o", tmp_path / "o.nc")
        assert status == 0, errors
        with xr.open_dataset(tmp_path / "o.nc") as found:
            assert found["phase"].shape == (34, 127)
            assert json.loads(found.attrs["provenance"])["parameters"]["energy"] == 300e3
            assert np.isfinite(found["phase"]).all()
        assert "rad" in said
