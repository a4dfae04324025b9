"""``exitwave retrieve holography``: simulated holograms, an experiment, and holospy's answer to it."""

import json
import math

import numpy as np
import pytest
import torch

from exitwave import optics, records
from exitwave.cli import hologram_preview
from exitwave.cli.holograms import frequency, pair, report
from exitwave.errors import InputError
from exitwave.readers import read_images
from exitwave.retrieve import hologram_record, holography
from exitwave.simulate import holograms, imaging

pytestmark = pytest.mark.usefixtures("one_thread")

ENERGY, STEP, N = 300e3, 2.0, 128
CARRIER = (0.131, 0.047)  # 1/Å
CONTRAST = 0.5
FERRUM = ("00_ref_Vbp_130V_0V_bin2_crop.hdf5", "01_holo_Vbp_130V_0V_bin2_crop.hdf5")


def wedge():
    """Return the phase of a thing that is thicker below than above, right than left: several turns."""
    y, x = np.mgrid[:N, :N] / N
    return 10.0 * np.exp(-((x - 0.6) ** 2 + (y - 0.55) ** 2) / 0.04) + 2.0 * np.exp(-((y - 0.2) ** 2) / 0.01)


def hologram_of(phase, *, dose=None, seed=0, carrier=CARRIER, contrast=CONTRAST, step=STEP):
    wave = torch.polar(torch.ones(phase.shape, dtype=torch.float64), torch.as_tensor(phase))
    clean = holograms.simulate(wave, sampling=step, carrier=carrier, contrast=contrast)
    if dose is None:
        return clean.numpy()
    return imaging.add_poisson_noise(clean, dose, (step, step), torch.Generator().manual_seed(seed)).numpy()


def record_of(image, **changed):
    known = {"defocus": [0.0], "sampling": STEP, "energy": ENERGY} | changed
    return records.images(np.asarray(image)[None], **known)


def retrieved(image, reference=None, **options):
    said = []
    empty = None if reference is None else record_of(reference)
    return hologram_record.retrieve(record_of(image), empty, warn=said.append, **options), said


HOLOGRAM, EMPTY = hologram_of(wedge()), hologram_of(np.zeros((N, N)))


class TestRecord:
    def test_phase_is_unwrapped(self):
        found, said = retrieved(HOLOGRAM, EMPTY)
        assert said == []
        off = found["phase"].values - wedge()
        assert np.ptp(found["phase"].values) > 1.5 * math.tau
        assert np.std(off[8:-8, 8:-8]) < 0.02
        np.testing.assert_allclose(
            np.exp(1j * found["phase"].values),
            np.exp(1j * np.angle(records.from_parts(found["wave"]))),
            atol=1e-6,
        )
        assert records.from_parts(found["wave"]).mean().imag == pytest.approx(0, abs=1e-9)

    def test_the_other_side_band_turns_the_phase_round(self):
        one, other = retrieved(HOLOGRAM, EMPTY)[0], retrieved(HOLOGRAM, EMPTY, conjugate=True)[0]
        assert np.array(other["carrier"]) == pytest.approx(-np.array(one["carrier"]))
        inner = slice(8, -8)
        total = (one["phase"] + other["phase"]).values[inner, inner]
        assert np.std(total) < 1e-6
        signed = retrieved(HOLOGRAM, EMPTY, carrier=(-0.12, -0.05))[0]
        np.testing.assert_allclose(signed["wave"], other["wave"])

    def test_numbers_of_the_record(self):
        found, _ = retrieved(HOLOGRAM, EMPTY, dose=50.0)
        assert found["carrier"].values == pytest.approx(CARRIER, abs=1e-5)
        assert float(found["radius"]) == pytest.approx(math.hypot(*CARRIER) / 3, rel=1e-4)
        assert float(found["resolution"]) == pytest.approx(3 / math.hypot(*CARRIER), rel=1e-4)
        assert float(found["reference_contrast"]) == pytest.approx(CONTRAST, rel=1e-3)
        alone = holography.phase_deviation(float(found["electrons"]), CONTRAST)
        assert float(found["deviation"]) == pytest.approx(math.sqrt(2) * alone, rel=0.02)
        for name in found.variables:
            assert {"units", "long_name"} <= set(found[name].attrs), name

    def test_single_precision(self):
        found, _ = retrieved(HOLOGRAM.astype(np.float32), EMPTY.astype(np.float32))
        assert found["wave"].dtype == found["phase"].dtype == np.float32
        assert np.std((found["phase"].values - wedge())[8:-8, 8:-8]) < 0.02

    @pytest.mark.parametrize(
        ("reference", "options", "said"),
        [
            (hologram_of(np.zeros((N, N)), carrier=(0.131, 0.09)), {}, "the biprism at another voltage"),
            (EMPTY, {"radius": 0.08}, "wider than half the carrier"),
            (None, {"dose": 0.005}, "standard deviation of"),
            (hologram_of(np.zeros((N, N)), carrier=(0.0, -0.17)), {}, "do the two belong together"),
            (
                np.where(np.arange(N) < 40, EMPTY, 2 + 1e-5 * EMPTY), {}, "hardly any fringes in",
            ),
        ],
    )  # fmt: skip
    def test_says_what_looks_wrong(self, reference, options, said):
        _, warnings = retrieved(HOLOGRAM, reference, **options)
        assert any(said in each for each in warnings), warnings
        assert all("\n" not in each for each in warnings)

    @pytest.mark.parametrize(
        ("changed", "said"),
        [
            ({"sampling": 2.1}, "pixels of the hologram"),
            ({"energy": 200e3}, "beam energy of the hologram 300000.0 eV, of the reference 200000.0 eV"),
        ],
    )
    def test_refuses_a_reference_of_another_microscope(self, changed, said):
        with pytest.raises(InputError, match=said):
            hologram_record.retrieve(record_of(HOLOGRAM), record_of(EMPTY, **changed))

    def test_refuses_several(self):
        two = records.images([HOLOGRAM, EMPTY], defocus=[0, 0], sampling=STEP, energy=ENERGY)
        with pytest.raises(InputError, match="2 images where one hologram"):
            hologram_record.retrieve(two)
        with pytest.raises(InputError, match="2 images where one reference"):
            hologram_record.retrieve(record_of(HOLOGRAM), two)


@pytest.fixture
def files(tmp_path):
    np.save(tmp_path / "holo.npy", 1000 * HOLOGRAM)
    records.save(record_of(1000 * EMPTY), tmp_path / "empty.nc")
    return tmp_path


KNOWN = ("--energy", "300kV", "--pixel", "0.2nm")


class TestCommand:
    def test_writes_wave_preview_and_report(self, exitwave, files):
        wave = files / "wave.nc"
        status, said, complaints = exitwave(
            "retrieve",
            "holography",
            files / "holo.npy",
            "--reference",
            files / "empty.nc",
            *KNOWN,
            "-o",
            wave,
        )
        assert (status, complaints) == (0, "")
        found = records.load(wave, "wave")
        assert np.std((found["phase"].values - wedge())[8:-8, 8:-8]) < 0.02
        made = records.provenance_of(found)
        assert made["parameters"]["files"] == ["holo.npy", "empty.nc"]
        assert made["parameters"]["conjugate"] is False
        assert made["command"].endswith("wave.nc")
        assert (files / "wave.png").read_bytes()[:4] == b"\x89PNG"
        spacing = 0.1 / math.hypot(*CARRIER)
        assert f"fringes every {spacing:.3f}"[:18] in said
        assert "side band at qy, qx = -1.31, -0.47 1/nm" in said
        assert "--conjugate" in said
        assert sorted(path.name for path in files.iterdir()) == [
            "empty.nc",
            "holo.npy",
            "wave.nc",
            "wave.png",
        ]

    def test_options_are_those_of_the_retrieval(self, exitwave, files):
        wave = files / "wave.nc"
        status, _, _ = exitwave(
            "retrieve", "holography", files / "holo.npy", *KNOWN, "--carrier", "-1.3/nm,-0.5/nm",
            "--radius", "0.3/nm", "--edge", "0", "--dose", "40", "--no-preview", "-o", wave,
        )  # fmt: skip
        assert status == 0
        found = records.load(wave)
        expected, _ = retrieved(1000 * HOLOGRAM, carrier=(-0.13, -0.05), radius=0.03, edge=0.0, dose=40.0)
        np.testing.assert_array_equal(found["wave"], expected["wave"])
        assert float(found["deviation"]) == float(expected["deviation"])
        assert not (files / "wave.png").exists()

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (("--carrier", "0.3"), "carrier '0.3' is not two frequencies"),
            (("--carrier", "0.1/nm,fast"), "carrier 'fast' is not a frequency"),
            (("--carrier", "3/nm,0"), "two pixels"),
            (("--radius", "2nm"), "radius '2nm' is not a frequency"),
            (("--radius", "2/nm"), "reaches the centre band"),
            (("--dose", "-3"), "dose -3.0 is not positive"),
        ],
    )
    def test_one_line_of_what_was_wrong(self, exitwave, files, options, said):
        wave = files / "wave.nc"
        status, _, complaint = exitwave(
            "retrieve", "holography", files / "holo.npy", *KNOWN, *options, "-o", wave
        )
        assert status == 2
        assert said in complaint
        assert complaint.count("\n") == 1
        assert not wave.exists()

    def test_no_fringes_names_the_option(self, exitwave, files):
        np.save(files / "flat.npy", np.random.default_rng(0).poisson(100, (64, 64)))
        status, _, complaint = exitwave(
            "retrieve", "holography", files / "flat.npy", *KNOWN, "-o", files / "wave.nc"
        )
        assert status == 2
        assert "no side band" in complaint
        assert "--carrier qy,qx" in complaint

    def test_missing_numbers_name_the_options(self, exitwave, files):
        status, _, complaint = exitwave("retrieve", "holography", files / "holo.npy", "-o", files / "wave.nc")
        assert status == 2
        assert "--energy" in complaint
        assert "--pixel" in complaint
        assert "defocus" not in complaint

    def test_no_image_is_replaced(self, exitwave, files):
        before = (files / "empty.nc").read_bytes()
        status, _, complaint = exitwave(
            "retrieve", "holography", files / "holo.npy", "--reference", files / "empty.nc", *KNOWN,
            "-o", files / "empty.nc",
        )  # fmt: skip
        assert status == 2
        assert "is one of the images" in complaint
        assert (files / "empty.nc").read_bytes() == before

    def test_a_warning_is_said_and_the_work_goes_on(self, exitwave, files):
        status, _, complaint = exitwave(
            "retrieve", "holography", files / "holo.npy", *KNOWN, "--radius", "0.8/nm", "--no-preview",
            "-o", files / "wave.nc",
        )  # fmt: skip
        assert status == 0
        assert "exitwave: warning: the aperture is wider than half the carrier" in complaint

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("0.26/nm", 0.026),
            ("0.26 1/nm", 0.026),
            ("0.1/A", 0.1),
            ("0.1/Å", 0.1),
            ("-2nm^-1", -0.2),
            ("0.3", 0.3),
        ],
    )
    def test_frequencies(self, text, value):
        assert frequency(text, "radius") == pytest.approx(value)
        assert pair(f"{text},0") == (pytest.approx(value), 0)

    @pytest.mark.parametrize("text", ["", "nan", "inf/nm", "1/nm2", "3/um", "1e-1mrad"])
    def test_what_is_no_frequency(self, text):
        with pytest.raises(InputError, match="is not a frequency"):
            frequency(text, "radius")


class TestPreview:
    def test_marks_the_side_band_that_was_taken(self):
        found, _ = retrieved(HOLOGRAM, EMPTY)
        figure = hologram_preview.draw(found, record_of(HOLOGRAM))
        spectrum = next(axes for axes in figure.axes if axes.get_title() == "spectrum of the hologram")
        taken, other = spectrum.patches
        assert taken.center == pytest.approx((-10 * CARRIER[1], -10 * CARRIER[0]), abs=1e-3)
        assert other.center == pytest.approx((10 * CARRIER[1], 10 * CARRIER[0]), abs=1e-3)
        assert taken.get_label() == "taken"
        # The image below the circles is large where they are: its rows and columns are where its axes say.
        [image] = spectrum.images
        values, (left, right, bottom, top) = np.asarray(image.get_array()), image.get_extent()
        row = int((taken.center[1] - top) / (bottom - top) * N)
        column = int((taken.center[0] - left) / (right - left) * N)
        assert values[row - 1 : row + 2, column - 1 : column + 2].max() > -1.0

    def test_lines_of_the_report(self):
        lines = report(retrieved(HOLOGRAM)[0])
        assert all("nan" not in line and "\n" not in line for line in lines)
        assert "of the reference" not in lines[0]


def by_numpy(image, position, radius):
    """Return the side band at minus a position in pixels, as one finds it in textbooks."""
    n = image.shape[0]
    spectrum = np.roll(np.fft.fft2(image), position, axis=(0, 1))
    k = np.fft.fftfreq(n, 1 / n)
    return np.fft.ifft2(spectrum * (np.hypot(k[:, None], k) <= radius))


@pytest.fixture(scope="module")
def needle(external_data):
    """A hologram of an iron needle, and one of the vacuum: 300 kV, 512 x 512 pixels of 0.92 nm."""
    folder = external_data / "holography_holospy"
    empty, holo = (read_images(folder / name, in_focus=True) for name in FERRUM)
    return holo, empty


def first(record):
    return record["intensity"].values[0]


@pytest.mark.external
class TestNeedle:
    POSITION = (122, -58)  # of the reference, pixels of its spectrum

    def test_fringes(self, needle):
        holo, empty = needle
        step = records.sampling_of(empty)
        q = np.array(holography.find_carrier(torch.as_tensor(first(empty)), sampling=step))
        assert np.abs(q * np.array(step) * 512 - self.POSITION).max() < 1
        assert 1 / np.hypot(*q) == pytest.approx(34.7, rel=0.01)  # Å: 3.8 pixels
        near = holography.find_carrier(torch.as_tensor(first(holo)), sampling=step)
        assert np.abs((q - near) * np.array(step) * 512).max() < 6  # the needle's field bends them

    def test_wave_is_that_of_numpy(self, needle):
        holo, empty = needle
        step = records.sampling_of(holo)
        found = self.at_whole_pixels(holo, empty, step)
        expected = by_numpy(first(holo), self.POSITION, 40.5) / by_numpy(first(empty), self.POSITION, 40.5)
        np.testing.assert_allclose(found, expected, rtol=1e-8)

    @pytest.mark.oracle
    def test_wave_is_that_of_holospy(self, needle):
        from holospy.signals import HologramImage

        holo, empty = needle
        step = records.sampling_of(holo)
        signals = [HologramImage(first(each).astype(float)) for each in (holo, empty)]
        for signal in signals:
            for axis in signal.axes_manager.signal_axes:
                axis.scale, axis.units = step[0] / 10, "nm"
        place = signals[1].estimate_sideband_position(sb="lower")
        assert tuple(np.asarray(place.data).ravel()) == (self.POSITION[0], 512 + self.POSITION[1])
        theirs = signals[0].reconstruct_phase(
            signals[1], sb_position=place, sb_size=40.5, sb_smoothness=1e-4, show_progressbar=False
        )
        np.testing.assert_allclose(self.at_whole_pixels(holo, empty, step), theirs.data, rtol=1e-8)

    def at_whole_pixels(self, holo, empty, step):
        """Return the wave with the aperture of both others: hard, its centre on a pixel."""
        carrier = [p / (512 * d) for p, d in zip(self.POSITION, step, strict=True)]
        return holography.retrieve_wave(
            torch.as_tensor(first(holo)), sampling=step, carrier=carrier,
            reference=torch.as_tensor(first(empty)), radius=40.5 / (512 * step[0]), edge=0.0,
        ).wave.numpy()  # fmt: skip

    def test_vacuum_and_iron(self, needle):
        """Noise as it was foretold, a modulus of 1, and a mean inner potential that iron can have."""
        found = hologram_record.retrieve(*needle, conjugate=True)
        phase, modulus = found["phase"].values, np.abs(records.from_parts(found["wave"]))
        y, x = np.mgrid[-1:1:60j, -1:1:60j]
        smooth = np.stack([(y**i * x**j).ravel() for i in range(3) for j in range(3 - i)], 1)
        spread = []
        for top, left in ((20, 20), (20, 420), (250, 20), (420, 40), (100, 100), (430, 420)):
            part = phase[top : top + 60, left : left + 60].ravel()
            spread.append(np.std(part - smooth @ np.linalg.lstsq(smooth, part, rcond=None)[0]))
            assert modulus[top : top + 60, left : left + 60].mean() == pytest.approx(1.0, abs=0.1)
        assert np.mean(spread) == pytest.approx(float(found["deviation"]), rel=0.15)
        # Across the needle: its flux makes the two sides differ, its potential lifts the middle.
        column = phase[:, 380:420].mean(1)
        inside = 50 + np.flatnonzero(modulus[50:-50, 380:420].mean(1) < 0.7)
        above, below = inside[0], inside[-1]
        middle = column[(above + below) // 2 - 5 : (above + below) // 2 + 5].mean()
        lifted = middle - 0.5 * (column[above - 15] + column[below + 15])
        thickness = (below - above) * float(found["y"][1])  # of a round one
        potential = lifted / (optics.interaction_constant(300e3) * thickness)
        assert 10.0 < potential < 35.0

    def test_command(self, exitwave, external_data, tmp_path):
        folder = external_data / "holography_holospy"
        status, said, complaint = exitwave(
            "retrieve", "holography", folder / FERRUM[1], "--reference", folder / FERRUM[0],
            "--no-preview", "-o", tmp_path / "needle.nc",
        )  # fmt: skip
        assert (status, complaint) == (0, "")
        assert "fringes every 3.474 nm" in said
        made = json.loads(records.load(tmp_path / "needle.nc", "wave").attrs["provenance"])
        assert made["parameters"]["files"] == [FERRUM[1], FERRUM[0]]
