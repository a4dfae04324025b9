"""Scans from files in the layouts of other programs, and how they are read: in blocks, turned, binned."""

import math
import re
from dataclasses import dataclass, replace

import h5py
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exitwave import optics, records
from exitwave.errors import InputError
from exitwave.readers.scans import read_scan
from exitwave.readers.scans_sources import fitting_shapes

RNG = np.random.default_rng(5)
COUNTS = RNG.integers(0, 60, (3, 4, 8, 6)).astype(np.uint8)


def whole(scan, **how):
    """Return all patterns of a scan, which come in order."""
    parts, blocks = zip(*scan.blocks(**how), strict=True)
    assert [part.start for part in parts[1:]] == [part.stop for part in parts[:-1]]
    assert (parts[0].start, parts[-1].stop) == (0, scan.scan_shape[0])
    return torch.cat(blocks).numpy()


def npy(folder, counts=COUNTS, name="a.npy"):
    np.save(folder / name, counts)
    return folder / name


def empad(path, shape, seed=0):
    """Write frames of 130 x 128, the last two rows of which are no counts, and return the counts."""
    frames = np.random.default_rng(seed).random((*shape, 130, 128)).astype("<f4")
    frames[..., 128:, :] = np.nan
    frames.tofile(path)
    return frames[..., :128, :]


def mib(path, counts, depth, extension=True, bits=6):
    """Write a Merlin file frame by frame, its header as in the manual of the detector."""
    with path.open("wb") as file:
        for number, frame in enumerate(counts.reshape(-1, *counts.shape[-2:]), 1):
            rows, columns = frame.shape
            header = f"MQ1,{number:06d},00384,01,{columns:04d},{rows:04d},{depth},   1x1,01,"
            header += "2026-01-02 03:04:05.678901,0.001000,0,0,0,1.200000E+2,5.110000E+2"
            if extension:
                header += f",MQ1A,2026-01-02T03:04:05.678901234Z,1000000ns,{bits},"
            file.write(header.ljust(384, "\0").encode())
            file.write(frame.astype({"U08": ">u1", "U16": ">u2", "U32": ">u4"}[depth]).tobytes())
    return path


class TestEmpad:
    def test_last_rows_are_dropped_and_a_square_is_guessed(self, tmp_path):
        counts = empad(tmp_path / "a.raw", (2, 2))
        scan = read_scan(tmp_path / "a.raw")
        assert (scan.scan_shape, scan.detector_shape, scan.dtype) == ((2, 2), (128, 128), np.dtype("<f4"))
        assert "scan of 2 x 2 guessed from 4 patterns" in scan.notes[0]
        np.testing.assert_array_equal(whole(scan), counts)

    def test_shape_is_taken_from_the_name(self, tmp_path):
        counts = empad(tmp_path / "scan_x3_y2.raw", (2, 3))
        scan = read_scan(tmp_path / "scan_x3_y2.raw")
        assert scan.notes == ()
        np.testing.assert_array_equal(whole(scan), counts)

    @pytest.mark.parametrize(
        "told",
        [
            "<raw_file filename='other.raw'/><pix_x>3</pix_x><pix_y>2</pix_y>",
            "<raw_file filename='scan_x3_y2.raw'/>",
            "<scan_parameters mode='search'><scan_resolution_x>9</scan_resolution_x></scan_parameters>"
            "<scan_parameters mode='acquire'><scan_resolution_x>3</scan_resolution_x>"
            "<scan_resolution_y>2</scan_resolution_y></scan_parameters>",
        ],
    )
    def test_shape_and_step_are_taken_from_the_xml(self, tmp_path, told):
        counts = empad(tmp_path / "a.raw", (2, 3))
        field = (
            "<iom_measurements><full_scan_field_of_view><x>4.5e-9</x><y>4.5e-9</y>"
            "<scale_factor>0.75</scale_factor></full_scan_field_of_view></iom_measurements>"
        )
        (tmp_path / "a.xml").write_text(f"<root>{told}{field}</root>")
        for name in ("a.raw", "a.xml"):
            scan = read_scan(tmp_path / name)
            np.testing.assert_array_equal(whole(scan), counts)
            # 4.5 nm / 0.75 over 3 positions.
            assert scan.calibration.step == pytest.approx((20.0, 20.0))

    def test_shape_of_the_argument_wins(self, tmp_path):
        empad(tmp_path / "a.raw", (2, 3))
        (tmp_path / "a.xml").write_text("<root><pix_x>3</pix_x><pix_y>2</pix_y></root>")
        assert read_scan(tmp_path / "a.raw", shape=(3, 2)).scan_shape == (3, 2)


class TestMerlin:
    @pytest.mark.parametrize(("depth", "most"), [("U08", 63), ("U16", 4095), ("U32", 2**24 - 1)])
    @pytest.mark.parametrize("extension", [True, False])
    def test_counts_are_big_endian_behind_headers(self, tmp_path, depth, most, extension):
        counts = RNG.integers(0, most + 1, (2, 3, 4, 5))
        path = mib(tmp_path / "a.mib", counts, depth, extension, bits=most.bit_length())
        scan = read_scan(path, shape=(2, 3))
        assert scan.largest == most
        np.testing.assert_array_equal(whole(scan), counts)

    def test_it_agrees_with_rosettasciio_but_for_the_turned_rows(self, tmp_path):
        from rsciio.quantumdetector import file_reader

        path = mib(tmp_path / "a.mib", COUNTS, "U16")
        other = file_reader(str(path), navigation_shape=(4, 3))[0]["data"]
        np.testing.assert_array_equal(whole(read_scan(path, shape=(3, 4)).oriented(flip_y=True)), other)

    def test_a_counter_of_one_bit(self, tmp_path):
        assert read_scan(mib(tmp_path / "a.mib", COUNTS[:2, :2] % 2, "U08", bits=1)).largest == 1

    @pytest.mark.parametrize(
        "told",
        [
            "Frames in Acquisition (Number):\t12\nFrames per Trigger (Number):\t4\n",
            "ScanX:\t4\nScanY:\t3\n",
        ],
    )
    def test_shape_is_taken_from_the_hdr(self, tmp_path, told):
        path = mib(tmp_path / "a.mib", COUNTS, "U08")
        (tmp_path / "a.hdr").write_text(f"HDR,\t\n{told}End\t\n")
        assert read_scan(path).scan_shape == (3, 4)


class TestArrays:
    @pytest.mark.parametrize("dtype", ["u1", ">u2", "<u4", "i2", "f4", ">f8", "?", "f2"])
    @pytest.mark.parametrize("offset", [0, 7])
    def test_raw_numbers(self, tmp_path, dtype, offset):
        counts = COUNTS.astype(dtype)
        (tmp_path / "a.anything").write_bytes(b"x" * offset + counts.tobytes())
        scan = read_scan(tmp_path / "a.anything", dtype=dtype, detector=(8, 6), shape=(3, 4), offset=offset)
        np.testing.assert_array_equal(whole(scan), counts)

    @pytest.mark.parametrize("flat", [False, True])
    @pytest.mark.parametrize("order", ["C", "F"])
    def test_npy(self, tmp_path, flat, order):
        counts = np.asarray(COUNTS.reshape(12, 8, 6) if flat else COUNTS, order=order)
        scan = read_scan(npy(tmp_path, counts), shape=(3, 4) if flat else None)
        np.testing.assert_array_equal(whole(scan), COUNTS)

    def test_record_of_this_project(self, tmp_path):
        step, frequency = 1.5, 0.02
        record = records.make_record(
            "diffraction4d", COUNTS, energy=200e3, scan_y=np.arange(3) * step, scan_x=np.arange(4) * 2 * step,
            ky=(np.arange(8) - 4) * frequency, kx=(np.arange(6) - 3) * frequency,
        )  # fmt: skip
        scan = read_scan(records.save(record, tmp_path / "a.nc"))
        np.testing.assert_array_equal(whole(scan), COUNTS)
        assert scan.calibration.energy == 200e3
        assert scan.calibration.step == pytest.approx((step, 2 * step))
        assert scan.frequency() == pytest.approx((frequency, frequency))
        # What a probe of the forward model must have for such patterns.
        assert scan.sampling() == pytest.approx((1 / (8 * frequency), 1 / (6 * frequency)))


def py4dstem(path, *, old, units=("A", "A^-1"), flip=False, degrees=30.0):
    """Write the layout of py4DSTEM: since 0.13 values are data sets, before they were attributes."""
    values = {
        "R_pixel_size": 2.5, "R_pixel_units": units[0], "Q_pixel_size": 0.04, "Q_pixel_units": units[1],
        "QR_rotation_degrees": degrees, "QR_flip": flip, "probe_semiangle": 11.0,
        "convergence_semiangle_mrad": 21.4,
    }  # fmt: skip
    with h5py.File(path, "w") as file:
        if old:
            data = file.create_group("4DSTEM_experiment/data/datacubes/datacube_0")
            file.create_group("4DSTEM_experiment/metadata/metadata_0/calibration").attrs.update(values)
        else:
            root = file.create_group("datacube_root")
            root.attrs["emd_group_type"] = "root"
            data = root.create_group("datacube")
            data.attrs["python_class"] = "DataCube"
            group = root.create_group("metadatabundle/calibration")
            for name, value in values.items():
                group[name] = value.encode() if isinstance(value, str) else value
        data["data"] = COUNTS
        for axis in range(4):
            data[f"dim{axis}"] = np.arange(2.0)
            data[f"dim{axis}"].attrs["units"] = "pixels"
    return path


class TestHdf5:
    @pytest.mark.parametrize("old", [True, False])
    def test_py4dstem(self, tmp_path, old):
        scan = read_scan(py4dstem(tmp_path / "a.h5", old=old))
        np.testing.assert_array_equal(whole(scan), COUNTS)
        known = scan.calibration
        assert known.step == (2.5, 2.5)
        assert (known.frequency, known.angle) == ((0.04, 0.04), None)
        assert known.semiangle == pytest.approx(0.0214)
        assert known.energy is None

    def test_rotation_of_py4dstem_is_the_same_turn(self, tmp_path):
        """Its formulas (phase_base_class.py), with x the first axis, against ours."""
        angle = math.radians(30)
        first, second = 0.3, -0.7  # its x and y on the detector
        theirs = (
            math.cos(angle) * first - math.sin(angle) * second,
            math.sin(angle) * first + math.cos(angle) * second,
        )
        turn = read_scan(py4dstem(tmp_path / "a.h5", old=False)).calibration.rotation
        x, y = second, first
        ours = math.cos(turn) * x - math.sin(turn) * y, math.sin(turn) * x + math.cos(turn) * y
        assert (ours[1], ours[0]) == pytest.approx(theirs)

    def test_axes_that_py4dstem_swaps(self, tmp_path):
        scan = read_scan(py4dstem(tmp_path / "a.h5", old=False, flip=True))
        assert scan.detector_shape == (6, 8)
        assert "swapped" in scan.notes[0]
        np.testing.assert_array_equal(whole(scan), COUNTS.swapaxes(-1, -2))

    def test_milliradians_need_the_energy(self, tmp_path):
        scan = read_scan(py4dstem(tmp_path / "a.h5", old=False, units=("nm", "mrad")))
        assert scan.calibration.step == (25.0, 25.0)
        with pytest.raises(InputError, match=r"energy not found.*pass energy="):
            scan.frequency()
        known = scan.calibrated(energy=300e3)
        assert known.frequency() == pytest.approx((0.04e-3 / optics.wavelength(300e3),) * 2)

    def test_pixels_are_no_calibration(self, tmp_path):
        scan = read_scan(py4dstem(tmp_path / "a.h5", old=False, units=("pixels", "pixels")))
        assert scan.calibration.step is None
        with pytest.raises(InputError, match=r"pass angle=.*or frequency="):
            scan.frequency()

    def test_axes_of_berkeley_emd(self, tmp_path):
        with h5py.File(tmp_path / "a.emd", "w") as file:
            group = file.create_group("experiment/scan")
            group["data"] = COUNTS
            steps = ((0.2, "[n_m]"), (0.3, "[n_m]"), (0.5, "[n_m^-1]"), (0.6, "[n_m^-1]"))
            for axis, (step, unit) in enumerate(steps, 1):
                group[f"dim{axis}"] = np.arange(COUNTS.shape[axis - 1]) * step
                group[f"dim{axis}"].attrs["units"] = unit
        known = read_scan(tmp_path / "a.emd").calibration
        assert known.step == pytest.approx((2.0, 3.0))
        assert known.frequency == pytest.approx((0.05, 0.06))

    def test_hyperspy(self, tmp_path):
        """Written by RosettaSciIO."""
        from rsciio.hspy import file_writer

        scales = ((1.0, "nm"), (2.0, "nm"), (0.5, "mrad"), (0.5, "mrad"))
        axes = [
            {
                "name": f"axis {i}", "size": COUNTS.shape[i], "scale": scale, "offset": 0.0, "units": unit,
                "navigate": i < 2, "_type": "UniformDataAxis", "index_in_array": i, "is_binned": False,
            }
            for i, (scale, unit) in enumerate(scales)
        ]  # fmt: skip
        metadata = {
            "Acquisition_instrument": {"TEM": {"beam_energy": 80.0, "convergence_angle": 25.0}},
            "Signal": {"signal_type": ""},
            "General": {"title": "a"},
        }
        signal = {
            "data": COUNTS, "axes": axes, "original_metadata": {}, "tmp_parameters": {}, "models": {},
            "metadata": metadata,
            "attributes": {"_lazy": False, "ragged": False}, "learning_results": {}, "package": "",
            "package_version": "", "package_info": {"package": "", "package_version": ""},
        }  # fmt: skip
        file_writer(str(tmp_path / "a.hspy"), signal)
        scan = read_scan(tmp_path / "a.hspy")
        np.testing.assert_array_equal(whole(scan), COUNTS)
        known = scan.calibration
        assert (known.energy, known.semiangle) == pytest.approx((80e3, 0.025))
        assert known.step == pytest.approx((10.0, 20.0))
        assert known.angle == pytest.approx((0.5e-3, 0.5e-3))

    @pytest.mark.parametrize("chunks", [None, (2, 1, 8, 6), (1, 4, 4, 3), True])
    def test_any_layout_of_chunks(self, tmp_path, chunks):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file.create_dataset("x/y", data=COUNTS, chunks=chunks, compression=chunks and "gzip")
            file["thickness"] = np.ones((3, 4))
        np.testing.assert_array_equal(whole(read_scan(tmp_path / "a.h5")), COUNTS)

    def test_frames_in_a_row(self, tmp_path):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["frames"] = COUNTS.reshape(12, 8, 6)
        scan = read_scan(tmp_path / "a.h5", shape=(3, 4))
        np.testing.assert_array_equal(whole(scan, rows=2), COUNTS)
        np.testing.assert_array_equal(whole(scan.cropped((1, 3), (1, 4))), COUNTS[1:3, 1:4])

    def test_one_of_several_can_be_named(self, tmp_path):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["one"], file["two"] = COUNTS, COUNTS + 1
        np.testing.assert_array_equal(whole(read_scan(tmp_path / "a.h5", dataset="two")), COUNTS + 1)


@dataclass(frozen=True)
class View:
    """What may be done to a scan, drawn."""

    crop: tuple
    turns: list
    factor: int
    rows: int


@st.composite
def views(draw):
    sides = []
    for size in COUNTS.shape[:2]:
        first = draw(st.integers(0, size - 1))
        sides.append((first, draw(st.integers(first + 1, size))))
    turns = draw(st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), max_size=3))
    return View(tuple(sides), turns, draw(st.sampled_from([1, 2])), draw(st.integers(1, 4)))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(views())
def test_views_are_what_numpy_makes(folder, view):
    path = folder / "views.npy"
    if not path.exists():
        npy(folder, name="views.npy")
    scan = read_scan(path).calibrated(frequency=(0.1, 0.2)).cropped(*view.crop)
    rows, columns = (slice(*side) for side in view.crop)
    expected, pixel = COUNTS[rows, columns].astype(int), (0.1, 0.2)
    for transpose, flip_y, flip_x in view.turns:
        scan = scan.oriented(transpose=transpose, flip_y=flip_y, flip_x=flip_x)
        if transpose:
            expected, pixel = expected.swapaxes(-1, -2), pixel[::-1]
        expected = expected[..., :: -1 if flip_y else 1, :: -1 if flip_x else 1]
    scan = scan.binned(view.factor)
    height, width = (size // view.factor for size in expected.shape[2:])
    expected = expected.reshape(*expected.shape[:2], height, view.factor, width, view.factor).sum((3, 5))
    np.testing.assert_array_equal(whole(scan, rows=view.rows), expected)
    assert (scan.scan_shape, scan.detector_shape) == (expected.shape[:2], expected.shape[2:])
    assert scan.frequency() == pytest.approx([view.factor * each for each in pixel])
    summary = scan.summary()
    np.testing.assert_array_equal(summary.total, expected.sum((0, 1)))
    np.testing.assert_array_equal(summary.maximum, expected.max((0, 1)))


def test_a_small_budget_reads_small_pieces(tmp_path):
    scan = read_scan(npy(tmp_path))
    counts, asked = scan.counts, []

    class Watched:
        shape, dtype = counts.shape, counts.dtype

        def __getitem__(self, part):
            asked.append(tuple(each.stop - each.start for each in part))
            return counts[part]

    scan = replace(scan, counts=Watched())
    # Of two patterns.
    np.testing.assert_array_equal(whole(scan, budget=2 * 48 * 13), COUNTS)
    assert asked == [(1, 2)] * 6


def test_orientation_carries_the_mask_along(tmp_path):
    counts = COUNTS.copy()
    counts[..., 2, 1] = 250
    mask = torch.zeros(8, 6, dtype=torch.bool)
    mask[2, 1] = True
    scan = read_scan(npy(tmp_path, counts)).mended(mask)
    turned = scan.oriented(transpose=True, flip_y=True)
    np.testing.assert_array_equal(whole(turned), whole(scan).swapaxes(-1, -2)[..., ::-1, :])
    assert whole(turned).max() < 60


def test_bins_are_after_the_mending(tmp_path):
    counts = np.ones((1, 2, 8, 6), np.uint8)
    counts[..., 3, 3] = 200
    mask = torch.zeros(8, 6, dtype=torch.bool)
    mask[3, 3] = True
    scan = read_scan(npy(tmp_path, counts), shape=None).binned(2).mended(mask)
    np.testing.assert_array_equal(whole(scan), np.full((1, 2, 4, 3), 4.0))


def test_negative_counts(tmp_path):
    counts = COUNTS.astype("f4")
    counts[2, 1, 5, 3] = -2
    path = npy(tmp_path, counts)
    with pytest.raises(InputError, match=r"down to -2.*\(2, 1\), pixel \(5, 3\).*negative='zero'"):
        whole(read_scan(path))
    np.testing.assert_array_equal(whole(read_scan(path, negative="zero")), counts.clip(0))
    np.testing.assert_array_equal(whole(read_scan(path, negative="keep")), counts)


def test_what_is_not_finite(tmp_path):
    counts = COUNTS.astype("f8")
    counts[1, 3, 0, 2], counts[2, 3, 0, 2] = np.nan, 1e300
    path = npy(tmp_path, counts)
    with pytest.raises(InputError, match=r"1 values are not finite.*\(1, 3\), pixel \(0, 2\).*mask"):
        whole(read_scan(path), rows=1)
    mask = torch.zeros(8, 6, dtype=torch.bool)
    mask[0, 2] = True
    assert np.isfinite(whole(read_scan(path).mended(mask))).all()


@given(st.integers(1, 5000))
def test_shapes_that_fit(patterns):
    found = fitting_shapes(patterns)
    assert all(rows * columns == patterns for rows, columns in found)
    assert len(set(found)) == len(found) > 0
    side = math.isqrt(patterns)
    best = next(each for each in range(side, 0, -1) if patterns % each == 0)
    assert found[0] == (best, patterns // best)


@pytest.mark.external
def test_rotavirus(external_data):
    path = external_data / "4dstem_rotavirus" / "rotavirus_34x127x96x96_uint8.h5"
    if not path.exists():
        pytest.skip("no 4dstem_rotavirus in EXITWAVE_EXTERNAL_DATA")
    from exitwave.readers.bright_disk import find_disk
    from exitwave.readers.scans_pixels import bad_pixels

    scan = read_scan(path)
    assert (scan.scan_shape, scan.detector_shape) == ((34, 127), (96, 96))
    known = scan.calibration
    assert (known.energy, known.semiangle, known.step) == (300e3, 0.00103, (31.25, 31.25))
    summary = scan.summary()
    with h5py.File(path) as file:
        np.testing.assert_array_equal(summary.total, file["datacube"][:].sum((0, 1), dtype=float))
        centre, radius = file.attrs["disk_centre_px_in_crop"], float(file.attrs["disk_radius_px"])
    disk = find_disk(summary.total)
    # Half a pixel: what the rim of a disk of pixels leaves open.
    assert disk.centre == pytest.approx(tuple(centre), abs=0.5)
    assert disk.radius == pytest.approx(radius, abs=0.5)
    assert not bool(bad_pixels(summary.total).any())


def test_notes_are_single_lines(tmp_path):
    path = mib(tmp_path / "a.mib", COUNTS[:2, :2], "U08")
    assert all(re.fullmatch(r"[^\n]+", note) for note in read_scan(path).notes)
