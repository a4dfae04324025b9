"""``exitwave retrieve parallax`` and ``ssb``, against simulated patterns of a known phase."""

import math

import numpy as np
import pytest
from scan_files import ANGLE, ENERGY, STEP, correlation, phase, record

from exitwave import optics, records

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPE, DEFOCUS, STRENGTH = (24, 28), 120.0, 0.05
# By so much of a defocus χ changes by 0.3 rad at the edge of the aperture: it is as good as the right one.
NEAR = 0.1 * optics.wavelength(ENERGY) / ANGLE**2
INNER = (
    slice(4, -4),
    slice(4, -4),
)  # the images of the edges are displaced by 3.6 Å and blurred by the probe


@pytest.fixture(scope="module")
def truth():
    y, x = np.meshgrid(*(np.arange(n) * STEP for n in SHAPE), indexing="ij")
    return phase(y, x, SHAPE, STRENGTH)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Scans under- and overfocused, in focus, and with a detector whose axes are exchanged."""
    folder = tmp_path_factory.mktemp("scans")
    kinds = {
        "under": {"defocus": DEFOCUS, "rotation": 0.5},
        "over": {"defocus": -DEFOCUS, "rotation": 0.5},
        "focus": {"defocus": 0.0, "rotation": 0.5},
        "exchanged": {"defocus": DEFOCUS, "rotation": -2.0, "transposed": True},
    }
    return {
        name: records.save(record(SHAPE, strength=STRENGTH, **kind), folder / f"{name}.nc")
        for name, kind in kinds.items()
    }


def told_apart(found, truth):
    """Hold a phase to the known one; a conjugated or mirrored one would fail."""
    found, truth = (each - each.mean() for each in (found[INNER], truth[INNER]))
    assert correlation(found, truth) > 0.9
    assert max(correlation(found, each) for each in (truth[::-1], truth[:, ::-1])) < 0.5


class TestParallax:
    def run(self, exitwave, file, folder, *more):
        status, said, errors = exitwave("retrieve", "parallax", file, "-o", folder / "o.nc", *more)
        assert status == 0, errors
        return records.load(folder / "o.nc", "phase"), said, errors

    @pytest.mark.parametrize(
        ("kind", "rotation", "defocus"),
        [("under", 0.5, DEFOCUS), ("over", 0.5, -DEFOCUS), ("exchanged", -2.0, DEFOCUS)],
    )
    def test_lens_and_phase_from_no_start(self, exitwave, files, truth, tmp_path, kind, rotation, defocus):
        sign = ("--defocus", "-1nm") if kind == "over" else ()
        found, said, errors = self.run(exitwave, files[kind], tmp_path, *sign)
        assert float(found["retrieved_defocus"]) == pytest.approx(defocus, abs=NEAR)
        assert float(np.hypot(*found["astigmatism"])) < NEAR
        assert math.remainder(float(found["rotation"]) - rotation, 2 * math.pi) == pytest.approx(
            0, abs=math.radians(1)
        )
        told_apart(found["phase"].values, truth)
        assert ("axes of the detector are exchanged" in errors) == (kind == "exchanged")
        assert int(found["transposed"]) == (kind == "exchanged")
        assert "defocus" in said
        assert (tmp_path / "o.png").read_bytes()[:4] == b"\x89PNG"
        # What is warned of is in the record, too.
        lines = [line.removeprefix("exitwave: warning: ") for line in errors.splitlines()]
        assert found.attrs["warnings"].splitlines() == lines

    def test_a_known_rotation_decides_between_two(self, exitwave, files, tmp_path):
        found, _, _ = self.run(exitwave, files["over"], tmp_path, "--rotation", "0.5", "--no-preview")
        assert float(found["retrieved_defocus"]) == pytest.approx(-DEFOCUS, abs=NEAR)

    def test_finer_than_the_scan(self, exitwave, files, tmp_path):
        found, _, _ = self.run(exitwave, files["under"], tmp_path, "--upsampling", "2", "--no-preview")
        assert records.sampling_of(found) == pytest.approx((STEP / 2, STEP / 2))
        y, x = np.meshgrid(found["y"], found["x"], indexing="ij")
        told_apart(found["phase"].values, phase(y, x, SHAPE, STRENGTH))
        assert records.provenance_of(found)["parameters"]["upsampling"] == 2

    def test_in_focus_is_refused(self, exitwave, files, tmp_path):
        status, _, errors = exitwave("retrieve", "parallax", files["focus"], "-o", tmp_path / "o.nc")
        assert status == 2
        assert "too near to focus for parallax; use the single side band" in errors.splitlines()[-1]


class TestSideBand:
    def run(self, exitwave, file, folder, *more):
        status, said, errors = exitwave("retrieve", "ssb", file, "-o", folder / "o.nc", *more)
        assert status == 0, errors
        return records.load(folder / "o.nc", "phase"), said, errors

    @pytest.mark.parametrize(("kind", "defocus"), [("under", "12nm"), ("over", "-12nm"), ("exchanged", None)])
    def test_phase_of_a_defocused_probe(self, exitwave, files, truth, tmp_path, kind, defocus):
        known = () if defocus is None else ("--defocus", defocus, "--rotation", "0.5")
        found, said, _ = self.run(exitwave, files[kind], tmp_path, *known)
        told_apart(found["phase"].values, truth)
        assert "rad, known but for a constant" in said
        # Least squares: what is transferred has its own size.
        inner = found["phase"].values[INNER], truth[INNER] - truth[INNER].mean()
        assert float((inner[0] * inner[1]).sum() / (inner[1] ** 2).sum()) == pytest.approx(1, abs=0.2)
        assert (tmp_path / "o.png").read_bytes()[:4] == b"\x89PNG"

    def test_in_focus(self, exitwave, files, truth, tmp_path):
        found, _, errors = self.run(exitwave, files["focus"], tmp_path, "--no-preview")
        told_apart(found["phase"].values, truth)
        assert "0 is used: give --defocus" in errors
        assert "the sign of the phase excludes the opposite angle" in errors

    def test_a_fit_mends_the_lens(self, exitwave, files, truth, tmp_path):
        wrong = ("--defocus", "13nm", "--rotation", "0.53", "--fit", "--absorption")
        found, said, _ = self.run(exitwave, files["under"], tmp_path, *wrong)
        assert float(found["retrieved_defocus"]) == pytest.approx(DEFOCUS, abs=NEAR)
        assert float(found["rotation"]) == pytest.approx(0.5, abs=math.radians(1))
        told_apart(found["phase"].values, truth)
        # A pure phase object absorbs nothing.
        assert found["absorption"].values[INNER].std() < 0.3 * truth[INNER].std()
        assert "of the strongest frequencies is explained" in said

    @pytest.mark.parametrize(
        ("options", "named"),
        [
            (("--overlaps", "none"), "overlaps 'none' are not known: use all or single"),
            (("--regularisation", "0"), "regularisation 0: give"),
            (("--defocus", "10nm:20nm"), "is not a number of Å"),
        ],
    )
    def test_what_cannot_be_is_one_line(self, exitwave, files, tmp_path, options, named):
        status, output, errors = exitwave(
            "retrieve", "ssb", files["under"], "-o", tmp_path / "o.nc", *options
        )
        assert (status, output) == (2, "")
        assert named in errors.splitlines()[-1]
        assert not (tmp_path / "o.nc").exists()


@pytest.mark.parametrize("command", ["parallax", "ssb"])
def test_the_data_are_not_written_over(exitwave, files, command):
    status, _, errors = exitwave("retrieve", command, files["under"], "-o", files["under"])
    assert status == 2
    assert "may not replace it" in errors
    assert records.load(files["under"], "diffraction4d")["counts"].shape[:2] == SHAPE


@pytest.mark.external
def test_rotavirus(exitwave, external_data, tmp_path):
    """Nominal defocus 13.5 µm, rotation -126°: written down with the scan, good to some per cent."""
    path = external_data / "4dstem_rotavirus" / "rotavirus_34x127x96x96_uint8.h5"
    if not path.exists():
        pytest.skip("no 4dstem_rotavirus in EXITWAVE_EXTERNAL_DATA")
    status, _, errors = exitwave("retrieve", "parallax", path, "-o", tmp_path / "o.nc")
    assert status == 0, errors
    found = records.load(tmp_path / "o.nc", "phase")
    assert float(found["retrieved_defocus"]) == pytest.approx(135e3, rel=0.1)
    assert math.degrees(float(found["rotation"])) == pytest.approx(-126, abs=12)
    # Gold beads shift the phase most.
    values = found["phase"].values
    assert float(values.max() - np.median(values)) > 6 * float(values.std())
