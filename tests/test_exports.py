"""What is written for other programs, read back by them: tifffile, RosettaSciIO, NumPy."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import rsciio.hspy
import tifffile
from typer.testing import CliRunner

from exitwave import exports, records
from exitwave.cli import app
from exitwave.errors import InputError
from exitwave.readers import read_images

RNG = np.random.default_rng(4)
WAVE = RNG.normal(size=(12, 20)) + 1j * RNG.normal(size=(12, 20))
STACK = RNG.random((3, 12, 20)).astype(np.float32)


@pytest.fixture
def wave():
    """Not square, its pixels neither: what is transposed or mirrored shows."""
    made = records.provenance("exitwave retrieve", parameters={"note": "a µ and an Å"})
    return records.with_provenance(records.wave(WAVE, sampling=(0.12, 0.1), energy=80e3), made)


@pytest.fixture
def images():
    return records.images(STACK, defocus=[-100.0, 20.0, 500.0], sampling=(3.0, 2.5), energy=200e3)


@pytest.fixture
def patterns():
    return records.make_record(
        "diffraction4d", RNG.poisson(3.0, (2, 3, 6, 8)), energy=80e3, scan_y=np.arange(2) * 0.5,
        scan_x=np.arange(3) * 0.4, ky=(np.arange(6) - 3) * 0.02, kx=(np.arange(8) - 4) * 0.03,
    )  # fmt: skip


def axes_of(signal):
    names = ("name", "scale", "offset", "units", "navigate")
    return [tuple(axis.get(name) for name in names) for axis in signal["axes"]]


class TestTiff:
    def test_a_wave_is_phase_and_amplitude_with_its_pixel(self, wave, tmp_path):
        with tifffile.TiffFile(exports.export(wave, tmp_path / "wave.tif")) as file:
            pages, header, tags = file.asarray(), file.imagej_metadata, file.pages[0].tags
        assert pages.dtype == np.float32
        np.testing.assert_allclose(pages[0], np.angle(WAVE), atol=1e-6)
        np.testing.assert_allclose(pages[1], np.abs(WAVE), rtol=1e-6)
        assert header["Labels"] == ["phase (rad)", "amplitude"]
        assert header["unit"] == "nm"
        x, y = (np.divide(*tags[f"{axis}Resolution"].value) for axis in "XY")
        assert (1 / x, 1 / y) == pytest.approx((0.01, 0.012))  # nm
        about = json.loads(header["Info"])
        assert about["energy (eV)"] == 80e3
        assert json.loads(about["attributes"]["provenance"])["parameters"]["note"] == "a µ and an Å"

    def test_images_come_back_with_their_pixel(self, images, tmp_path):
        path = exports.export(images, tmp_path / "images.tif")
        found = read_images(path, defocus=[-100.0, 20.0, 500.0], energy=200e3)
        np.testing.assert_array_equal(found["intensity"], STACK)
        assert records.sampling_of(found) == pytest.approx((3.0, 2.5))
        with tifffile.TiffFile(path) as file:
            assert file.imagej_metadata["Labels"][2] == "intensity, defocus 500 Å"

    def test_patterns_are_no_images_of_lengths(self, patterns, tmp_path):
        path = exports.export(patterns, tmp_path / "patterns.tif")
        np.testing.assert_array_equal(
            tifffile.imread(path), patterns["counts"].values.reshape(6, 6, 8).astype(np.float32)
        )
        with pytest.raises(InputError, match="pixels in '1/nm', not a length"):
            read_images(path, defocus=[0.0] * 6, energy=80e3)


class TestHspy:
    def test_a_wave_stays_complex(self, wave, tmp_path):
        (found,) = rsciio.hspy.file_reader(exports.export(wave, tmp_path / "wave.hspy"))
        np.testing.assert_array_equal(found["data"], WAVE)
        assert axes_of(found) == [
            ("y", pytest.approx(0.12), 0, "Å", False), ("x", pytest.approx(0.1), 0, "Å", False)
        ]  # fmt: skip
        assert (
            found["metadata"]["Acquisition_instrument"]["TEM"]["beam_energy"] == 80
        )  # keV, as HyperSpy has it
        kept = found["original_metadata"]["exitwave"]["attributes"]
        assert json.loads(kept["provenance"])["parameters"]["note"] == "a µ and an Å"

    def test_images_come_back_with_all_that_is_known_of_them(self, images, tmp_path):
        found = read_images(exports.export(images, tmp_path / "images.hspy"))
        np.testing.assert_array_equal(found["intensity"], STACK)
        assert found["defocus"].values.tolist() == [-100, 20, 500]  # uneven
        assert records.sampling_of(found) == pytest.approx((3.0, 2.5))
        assert float(found["energy"]) == 200e3

    def test_a_scan_is_navigated(self, patterns, tmp_path):
        path = exports.export(patterns, tmp_path / "scan.hspy")
        (found,) = rsciio.hspy.file_reader(path)
        assert found["data"].shape == (2, 3, 6, 8)
        assert [axis[4] for axis in axes_of(found)] == [True, True, False, False]
        assert axes_of(found)[3][:4] == ("kx", pytest.approx(0.03), pytest.approx(-0.12), "1/Å")

    def test_what_is_longer_than_an_attribute_may_be_is_cut(self, wave, tmp_path):
        path = exports.export(wave.assign_attrs(warnings="µ" * 200_000), tmp_path / "wave.hspy")
        (found,) = rsciio.hspy.file_reader(path)
        assert 10_000 < len(found["original_metadata"]["exitwave"]["attributes"]["warnings"]) < 65_536


def test_without_hyperspy_the_remedy_is_named(wave, monkeypatch):
    monkeypatch.setitem(sys.modules, "hyperspy", None)
    with pytest.raises(InputError, match=r"pip install hyperspy.*\.hspy file"):
        exports.to_hyperspy(wave)


class TestFiles:
    def test_numbers_alone(self, wave, tmp_path):
        np.testing.assert_array_equal(np.load(exports.export(wave, tmp_path / "new" / "wave.npy")), WAVE)

    def test_a_file_that_is_there_stays(self, wave, tmp_path):
        path = tmp_path / "wave.npy"
        path.write_bytes(b"mine")
        with pytest.raises(InputError, match="is there already: give another name, or overwrite=True"):
            exports.export(wave, path)
        assert path.read_bytes() == b"mine"
        exports.export(wave, path, overwrite=True)
        assert np.load(path).shape == (12, 20)

    @pytest.mark.parametrize("suffix", exports.SUFFIXES)
    def test_whole_or_not_at_all(self, wave, tmp_path, monkeypatch, suffix):
        """A disk that is full after some bytes leaves what was there, and no rest."""

        def full(record, path, variable):
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")

        monkeypatch.setitem(exports._WRITERS, suffix, full)
        path = tmp_path / f"wave{suffix}"
        path.write_bytes(b"old")
        with pytest.raises(OSError, match="No space"):
            exports.export(wave, path, overwrite=True)
        assert path.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [path]

    def test_what_cannot_be_written(self, wave, tmp_path):
        numbers = wave.assign(evaluations=((), 3, {"units": "1", "long_name": "evaluations"}))
        with pytest.raises(InputError, match=r"evaluations has the axes \(\), it is no image: use \.npy"):
            exports.export(numbers, tmp_path / "a.tif", variable="evaluations")
        with pytest.raises(InputError, match="no variable 'phase' in the record: there is wave"):
            exports.export(wave, tmp_path / "a.tif", variable="phase")
        with pytest.raises(InputError, match=r"suffix '\.nc': a record is one already"):
            exports.export(wave, tmp_path / "a.nc")
        with pytest.raises(InputError, match="no known layout: name one of its variables, wave"):
            exports.export(wave.drop_attrs(deep=False), tmp_path / "a.tif")
        assert list(tmp_path.iterdir()) == []


class TestCommand:
    def test_says_what_it_wrote(self, wave, tmp_path):
        record, output = records.save(wave, tmp_path / "wave.nc"), tmp_path / "wave.tif"
        said = CliRunner().invoke(app, ["export", str(record), "-o", str(output)], catch_exceptions=False)
        assert said.output.splitlines() == [
            str(output), "wave: y 12, x 20",
            "2 pages, the first: phase (rad); 32 bit; pixel 0.012 x 0.01 nm (y, x)",
        ]  # fmt: skip
        with pytest.raises(InputError, match="is there already: give another name, or --overwrite"):
            CliRunner().invoke(app, ["export", str(record), "-o", str(output)], catch_exceptions=False)

    def test_no_record(self, tmp_path):
        path = tmp_path / "wave.nc"
        path.write_bytes(b"no netCDF")
        with pytest.raises(InputError, match="not an HDF5 file"):
            CliRunner().invoke(
                app, ["export", str(path), "-o", str(tmp_path / "w.tif")], catch_exceptions=False
            )
