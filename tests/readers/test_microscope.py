"""Microscope files: pixels and metadata of every format, missing numbers asked for."""

from functools import partial

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from writers import FORMATS, HDF5, IMAGE, KNOWN, STACK, dm_bytes, signal, write, write_velox
from writers import refused as refused_by

from exitwave import records
from exitwave.readers import read_images

refused = partial(refused_by, read_images)


# --- what is written comes back ----------------------------------------------------------------------------

images = array_shapes(min_dims=2, max_dims=3, min_side=2, max_side=5).flatmap(
    lambda shape: arrays(np.float32, shape, elements=st.floats(0, 1e6, width=32))
)


def check_pixels_and_their_size(folder, kind, image, nanometre):
    path = write(folder / f"trip.{kind}", image, kind, sampling=nanometre)
    count = len(image) if image.ndim == 3 else 1
    known = {"sampling": 10 * nanometre} if kind == "npy" else {}
    record = read_images(path, defocus=100.0 * np.arange(count), energy=300e3, **known)
    np.testing.assert_array_equal(record["intensity"], image.reshape(-1, *image.shape[-2:]))
    assert record["intensity"].dtype == np.float32
    np.testing.assert_allclose(records.sampling_of(record), 10 * nanometre, rtol=1e-6)
    np.testing.assert_array_equal(record["defocus"], 100.0 * np.arange(count))
    records.validate(record, "images")


given_images = given(
    image=images, nanometre=st.floats(0.002, 30.0).filter(lambda size: abs(size - 0.1) > 1e-3)
)


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind not in HDF5])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given_images
def test_pixels_and_their_size_come_back(folder, kind, image, nanometre):
    check_pixels_and_their_size(folder, kind, image, nanometre)


@pytest.mark.parametrize("kind", HDF5)
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given_images
def test_pixels_and_their_size_come_back_from_hdf5(folder, kind, image, nanometre):
    check_pixels_and_their_size(folder, kind, image, nanometre)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float64"])
@pytest.mark.parametrize("kind", ["dm3", "dm4", "tif", "hspy", "npy"])
def test_every_type_keeps_its_values(tmp_path, kind, dtype):
    image = (100 * IMAGE).astype(dtype)
    record = read_images(write(tmp_path / f"a.{kind}", image, kind), defocus=0, **KNOWN)
    np.testing.assert_array_equal(record["intensity"][0], image)
    assert record["intensity"].dtype == (np.float64 if image.itemsize > 2 else np.float32)
    assert "not normalised" in record["intensity"].attrs["long_name"]


@pytest.mark.parametrize("dtype", [np.float16, ">f4", ">i2", bool, np.int64, np.longdouble])
def test_npy_of_any_real_type(tmp_path, dtype):
    np.save(tmp_path / "a.npy", (3 * IMAGE).astype(dtype))
    record = read_images(tmp_path / "a.npy", defocus=0, **KNOWN)
    np.testing.assert_allclose(record["intensity"][0], (3 * IMAGE).astype(dtype).astype(float), rtol=1e-6)
    assert record["intensity"].dtype.isnative


# --- metadata ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["dm3", "dm4"])
def test_dm_tells_energy_and_defocus(tmp_path, kind):
    path = write(tmp_path / f"a.{kind}", IMAGE, kind, energy_kev=300.0, defocus_um=-1.5)
    record = read_images(path)
    assert float(record["energy"]) == 300e3
    assert record["defocus"].values == pytest.approx([15e3])  # Thermo Fisher's -1.5 µm is underfocus


def test_velox_tells_energy_and_defocus(tmp_path):
    write_velox(tmp_path / "a.emd", IMAGE[None], defocus_m=-1e-6, volts=200e3)
    record = read_images(tmp_path / "a.emd")
    assert float(record["energy"]) == 200e3
    assert record["defocus"].values == pytest.approx([1e4])
    assert records.sampling_of(record) == pytest.approx((5, 5))


def test_hyperspy_tells_energy_and_a_defocus_axis(tmp_path):
    path = write(tmp_path / "a.hspy", STACK, "hspy", energy_kev=200.0, stack=("defocus", "µm", 0.5, -0.25))
    record = read_images(path)
    assert float(record["energy"]) == 200e3
    assert record["defocus"].values == pytest.approx([-2500, 2500])


def test_an_own_record_tells_all(tmp_path):
    own = records.images(STACK, defocus=[-50, 50], sampling=(2.0, 3.0), energy=80e3)
    records.save(own, tmp_path / "a.nc")
    record = read_images(tmp_path / "a.nc")
    for name in ("intensity", "defocus", "y", "x", "energy"):
        np.testing.assert_array_equal(record[name], own[name])
    assert record["intensity"].attrs == own["intensity"].attrs


def test_in_focus_is_what_files_do_not_deny(tmp_path):
    np.save(tmp_path / "a.npy", STACK)
    known = {"sampling": 2.0, "energy": 80e3, "in_focus": True}
    assert read_images(tmp_path / "a.npy", **known)["defocus"].values.tolist() == [0.0] * len(STACK)
    records.save(records.images(STACK, defocus=[-50, 50], sampling=2.0, energy=80e3), tmp_path / "a.nc")
    assert read_images(tmp_path / "a.nc", **known)["defocus"].values.tolist() == [-50.0, 50.0]
    assert read_images(tmp_path / "a.npy", **known, defocus=[1, 2])["defocus"].values.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("kind", ["dm3", "velox.emd"])
def test_one_defocus_does_not_do_for_a_stack(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    if kind == "dm3":
        path.write_bytes(dm_bytes(STACK, defocus_um=-1.0))
    else:
        write_velox(path, STACK, defocus_m=-1e-6)
    assert "defocus=... (2 numbers" in refused(path)


@pytest.mark.parametrize(
    ("unit", "angstrom"),
    [
        ("nm", 10),
        ("µm", 1e4),
        ("\u03bcm", 1e4),
        ("um", 1e4),
        ("pm", 0.01),
        ("\u00c5", 1),
        ("\u212b", 1),
        ("A", 1),
    ],
)
@pytest.mark.parametrize("kind", ["dm3", "hspy"])
def test_units_of_length(tmp_path, kind, unit, angstrom):
    path = write(tmp_path / f"a.{kind}", IMAGE, kind, sampling=0.25, unit=unit)
    assert records.sampling_of(read_images(path, defocus=0, energy=2e5)) == pytest.approx(
        2 * (0.25 * angstrom,)
    )


@pytest.mark.parametrize("unit", ["1/nm", "nm^-1", "mrad", "s", "eV", "furlong?", "9**9**9**9"])
@pytest.mark.parametrize("kind", ["dm4", "hspy"])
def test_other_units_are_refused_unless_overridden(tmp_path, kind, unit):
    path = write(tmp_path / f"a.{kind}", IMAGE, kind, unit=unit)
    assert "not a length" in refused(path, defocus=0, energy=2e5)
    assert records.sampling_of(read_images(path, defocus=0, **KNOWN)) == (5, 5)


@pytest.mark.parametrize("unit", ["", "px", "pixel", "inch"])
@pytest.mark.parametrize("kind", ["dm3", "tif", "hspy"])
def test_uncalibrated_pixels_count_as_missing(tmp_path, kind, unit):
    path = write(tmp_path / f"a.{kind}", IMAGE, kind, unit=unit, sampling=1.0)
    message = refused(path, defocus=0, energy=2e5)
    assert "sampling=" in message
    assert "defocus=" not in message


@pytest.mark.parametrize("sampling", [0.0, 0.1])
def test_mrc_of_unknown_pixel_size(tmp_path, sampling):
    path = write(tmp_path / "a.mrc", IMAGE, "mrc", sampling=sampling)
    assert "sampling=" in refused(path, defocus=0, energy=2e5)


@pytest.mark.parametrize(
    ("unit", "angstrom"), [("nm", 10), ("micron", 1e4), (r"\u00B5m", 1e4), ("inch", None)]
)
def test_tiff_of_imagej(tmp_path, unit, angstrom):
    path = tmp_path / "a.tif"
    meta = {"unit": unit, "axes": "ZYX"}
    tifffile.imwrite(path, STACK, imagej=True, resolution=(1 / 0.5, 1 / 0.25), metadata=meta)
    if angstrom is None:
        assert "sampling=" in refused(path, defocus=[0, 1], energy=2e5)
    else:
        record = read_images(path, defocus=[0, 1], energy=2e5)
        assert records.sampling_of(record) == pytest.approx((0.25 * angstrom, 0.5 * angstrom), rel=1e-6)
        np.testing.assert_array_equal(record["intensity"], STACK)


def test_a_cut_stack_of_imagej_is_refused(tmp_path, caplog):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK, imagej=True, truncate=True, metadata={"axes": "ZYX"})
    path.write_bytes(path.read_bytes()[:-1])
    assert "1 of 2 images" in refused(path, defocus=0, **KNOWN)
    assert caplog.text == ""


def test_arguments_override_the_file(tmp_path):
    path = write(tmp_path / "a.dm3", IMAGE, "dm3", energy_kev=300.0, defocus_um=-1.5)
    record = read_images(str(path), defocus=7, sampling=(1, 2), energy=80e3)
    assert records.sampling_of(record) == (1, 2)
    assert float(record["energy"]) == 80e3
    assert record["defocus"].values == [7]


def test_all_that_is_missing_is_asked_for_at_once(tmp_path):
    path = write(tmp_path / "a.npy", STACK, "npy")
    message = refused(path)
    assert all(f"{name}=..." in message for name in ("sampling", "energy", "defocus"))
    assert "2 numbers" in message


# --- several files -----------------------------------------------------------------------------------------


def test_files_are_joined_in_the_order_given(tmp_path):
    paths = [
        write(tmp_path / f"{n}.dm3", IMAGE + n, "dm3", energy_kev=300.0, defocus_um=-n)
        for n in (1.0, 3.0, 2.0)
    ]
    record = read_images(paths)
    assert record["defocus"].values == pytest.approx([1e4, 3e4, 2e4])
    np.testing.assert_array_equal(record["intensity"], [IMAGE + 1, IMAGE + 3, IMAGE + 2])


def test_formats_mix(tmp_path):
    paths = [write(tmp_path / "a.dm3", IMAGE, "dm3"), write(tmp_path / "b.tif", STACK, "tif")]
    assert read_images(paths, defocus=[1, 2, 3], energy=2e5).sizes["defocus"] == 3


def test_files_must_agree(tmp_path):
    first = write(tmp_path / "a.dm3", IMAGE, "dm3", energy_kev=300.0)
    small = write(tmp_path / "b.dm3", IMAGE[:4], "dm3", energy_kev=300.0)
    fine = write(tmp_path / "c.dm3", IMAGE, "dm3", sampling=0.2, energy_kev=300.0)
    soft = write(tmp_path / "d.dm3", IMAGE, "dm3", energy_kev=200.0)
    assert "b.dm3: image of shape (4, 9), but a.dm3" in refused([first, small], defocus=[0, 1])
    assert "c.dm3: sampling" in refused([first, fine], defocus=[0, 1])
    assert "d.dm3: energy" in refused([first, soft], defocus=[0, 1])
    assert read_images([first, fine, soft], defocus=[0, 1, 2], sampling=5, energy=3e5).sizes["defocus"] == 3
    silent = write(tmp_path / "e.dm3", IMAGE, "dm3")
    assert "e.dm3: energy not found" in refused([first, silent], defocus=[0, 1])


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"defocus": [1, 2]}, "1 images but 2 defoci"),
        ({"defocus": np.nan}, "defocus"),
        ({"defocus": "much"}, "defocus"),
        ({"defocus": []}, "defocus"),
        ({"defocus": 0, "sampling": 0}, "pixel size"),
        ({"defocus": 0, "sampling": (1, 2, 3)}, "sampling"),
        ({"defocus": 0, "sampling": "small"}, "sampling"),
        ({"defocus": 0, "energy": -3e5}, "energy"),
        ({"defocus": 0, "energy": "high\nhigh"}, "energy"),
    ],
)
def test_wrong_arguments(tmp_path, arguments, word):
    path = write(tmp_path / "a.npy", IMAGE, "npy")
    assert word in refused(path, **(KNOWN | arguments))


# --- what is no image --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5,), (2, 2, 2, 2), (0, 4), (2, 0, 4)])
def test_wrong_dimensions(tmp_path, shape):
    np.save(tmp_path / "a.npy", np.ones(shape))
    assert "shape" in refused(tmp_path / "a.npy", defocus=0, **KNOWN)


def test_pixels_must_be_finite(tmp_path):
    image = IMAGE.copy()
    image[2, 3] = np.nan
    for kind in ("dm3", "tif", "npy"):
        assert "1 pixels are not finite" in refused(
            write(tmp_path / f"a.{kind}", image, kind), defocus=0, **KNOWN
        )


def test_complex_values_and_colours_are_refused(tmp_path):
    (tmp_path / "a.dm3").write_bytes(dm_bytes(IMAGE.astype(np.complex64)))
    assert "complex" in refused(tmp_path / "a.dm3", defocus=0, **KNOWN)
    np.save(tmp_path / "a.npy", 1j * IMAGE)
    assert "complex" in refused(tmp_path / "a.npy", defocus=0, **KNOWN)
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 5, 3), np.uint8), photometric="rgb")
    assert "colours" in refused(tmp_path / "a.tif", defocus=0, **KNOWN)


def test_spectra_and_several_data_sets_are_refused(tmp_path):
    spectra = signal(STACK)
    spectra["axes"][1]["navigate"] = True
    hspy = pytest.importorskip("rsciio.hspy")
    hspy.file_writer(str(tmp_path / "a.hspy"), spectra)
    assert "spectra" in refused(tmp_path / "a.hspy", defocus=[0, 1], **KNOWN)
    tifffile.imwrite(tmp_path / "a.tif", IMAGE)
    tifffile.imwrite(tmp_path / "a.tif", IMAGE[:3], append=True)
    assert "2 data sets" in refused(tmp_path / "a.tif", defocus=[0, 1], **KNOWN)


def test_other_records_are_refused(tmp_path):
    records.save(records.phase(IMAGE, sampling=1.0, energy=2e5), tmp_path / "a.nc")
    assert "intensity" in refused(tmp_path / "a.nc")


def test_no_file_no_format(tmp_path):
    assert "no such file" in refused(tmp_path / "none.dm3")
    assert "a folder" in refused(tmp_path)
    assert "at least one" in refused([])
    assert "not the name" in refused(5)
    (tmp_path / "a.prz").write_bytes(b"PK")
    assert ".dm3" in refused(tmp_path / "a.prz")


# --- files of others ---------------------------------------------------------------------------------------


@pytest.mark.external
@pytest.mark.parametrize("name", ["00_ref_Vbp_130V_0V_bin2_crop.hdf5", "01_holo_Vbp_130V_0V_bin2_crop.hdf5"])
def test_holograms_of_holospy(external_data, name):
    path = external_data / "holography_holospy" / name
    record = read_images(path, defocus=0)
    assert record["intensity"].shape == (1, 512, 512)
    assert records.sampling_of(record) == pytest.approx((9.1975, 9.1975), rel=1e-4)
    assert float(record["energy"]) == 300e3
    assert "defocus=" in refused(path)
