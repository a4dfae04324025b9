"""Microscope files that are damaged, foreign or hostile: refused in one line, without hanging."""

import struct
import time
from functools import partial

import h5py
import mrcfile
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from writers import FORMATS, HDF5, IMAGE, KNOWN, STACK, write
from writers import refused as refused_by

from exitwave import records
from exitwave.errors import InputError
from exitwave.readers import guards, read_images

refused = partial(refused_by, read_images)
formats = pytest.mark.parametrize("kind", FORMATS)


@formats
@pytest.mark.parametrize(
    "content",
    [b"", b"just some text\n", b"x" * 5000, bytes(5000), b"\x89HDF\r\n\x1a\n" + bytes(3000), b"PK\3\4" * 50],
)
def test_a_foreign_file_is_one_line(tmp_path, kind, content):
    path = tmp_path / f"a.{kind}"
    path.write_bytes(content)
    assert str(path) in refused(path, defocus=0, **KNOWN)


@formats
def test_a_cut_file_is_refused_or_whole(folder, kind):
    path = write(folder / f"cut.{kind}", STACK, kind)
    content = path.read_bytes()
    # The HDF5 library is tried in another process, so fewer cuts are tried on it.
    steps = 3 if kind in HDF5 else 100
    ends = {*np.linspace(0, len(content) - 1, steps, dtype=int), len(content) - 1, len(content) - 9}
    for end in sorted(ends):
        path.write_bytes(content[:end])
        try:
            record = read_images(path, defocus=[0, 1], **KNOWN)
        except InputError as error:
            assert len(str(error).splitlines()) == 1  # noqa: PT017
        else:
            np.testing.assert_array_equal(record["intensity"], STACK)


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind not in HDF5])
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 10**6), byte=st.integers(0, 255))
def test_a_wrong_byte_is_refused_or_readable(folder, kind, position, byte):
    path = write(folder / f"flip.{kind}", STACK, kind)
    content = bytearray(path.read_bytes())
    content[position % len(content)] = byte
    path.write_bytes(content)
    try:
        record = read_images(path, defocus=[0, 1])
    except InputError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017
    else:
        records.validate(record, "images")


@pytest.mark.parametrize("kind", HDF5)
def test_wrong_bytes_in_hdf5_are_refused_or_readable(folder, kind):
    path = write(folder / f"flip.{kind}", STACK, kind)
    content = path.read_bytes()
    rng = np.random.default_rng(3)
    for position in (*rng.integers(8, 96, 2), *rng.integers(96, len(content), 3)):
        damaged = bytearray(content)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        try:
            read_images(path, defocus=[0, 1], **KNOWN)
        except InputError as error:
            assert len(str(error).splitlines()) == 1  # noqa: PT017


def test_what_hangs_or_crashes_hdf5_is_refused(tmp_path, monkeypatch):
    path = write(tmp_path / "a.hspy", IMAGE, "hspy")
    probe = tmp_path / "hdf5_probe.py"
    monkeypatch.setattr(guards, "__file__", str(tmp_path / "guards.py"))
    monkeypatch.setattr(guards, "PATIENCE", 1.0)
    probe.write_text("while True: pass\n")
    assert "does not end" in refused(path)
    probe.write_text("import os\nos.abort()\n")
    assert "crashes" in refused(path)


class _Pickle:
    def __reduce__(self):
        return (exec, ("raise SystemExit('the pickle was loaded')",))


def test_no_pickle_is_loaded(tmp_path):
    np.save(tmp_path / "a.npy", np.array([_Pickle()], dtype=object), allow_pickle=True)
    refused(tmp_path / "a.npy", defocus=0, **KNOWN)
    np.array(_Pickle(), dtype=object).dump(tmp_path / "b.npy")
    assert "not a .npy" in refused(tmp_path / "b.npy", defocus=0, **KNOWN)


def quickly_refused(path):
    start = time.process_time()
    message = refused(path, defocus=[0, 1], **KNOWN)
    assert time.process_time() - start < 2
    return message


def test_absurd_sizes_in_npy(tmp_path):
    with (tmp_path / "a.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f8", "fortran_order": False, "shape": (10**6, 10**8)}
        )
        file.write(bytes(100))
    quickly_refused(tmp_path / "a.npy")


def test_absurd_sizes_in_mrc(tmp_path):
    path = write(tmp_path / "a.mrc", STACK, "mrc")
    path.write_bytes(struct.pack("<3I", *3 * [4_000_000_000]) + path.read_bytes()[12:])
    assert "truncated" in quickly_refused(path)


def test_absurd_sizes_in_hdf5(tmp_path):
    with h5py.File(tmp_path / "a.emd", "w") as file:
        file.attrs["version_major"], file.attrs["version_minor"] = 0, 2
        group = file.create_group("signals/a")
        group.attrs["emd_group_type"] = 1
        group.create_dataset("data", shape=(1_000_000, 1_000_000), dtype="f8", chunks=(1000, 1000))
    assert "declares 8000000000000 bytes" in quickly_refused(tmp_path / "a.emd")


def tiff(width, height, following=0):
    """Return a TIFF file that holds 16 bytes of pixels, whatever it declares."""
    tags = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: 16}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    pages = struct.pack("<H", len(tags)) + entries + struct.pack("<I", following)
    return b"II*\0" + struct.pack("<I", 24) + bytes(16) + pages


def test_absurd_sizes_in_tiff(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(4, 4))
    assert read_images(path, defocus=0, **KNOWN).sizes["x"] == 4
    path.write_bytes(tiff(2_000_000_000, 2_000_000_000))
    assert "16 bytes for" in quickly_refused(path)


def test_pages_in_a_circle_are_refused(tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff(4, 4, following=24))
    assert "circle" in quickly_refused(tmp_path / "a.tif")


@pytest.mark.parametrize("version", [3, 4])
def test_hostile_tags_do_not_hang(tmp_path, version):
    word = ">i" if version == 3 else ">q"
    many = 2**30 if version == 3 else 2**62

    def number(value):
        return struct.pack(word, value)

    def value(*info):
        size = number(0) if version == 4 else b""
        return struct.pack(">Bh", 21, 0) + size + b"%%%%" + number(len(info)) + b"".join(map(number, info))

    deep = (struct.pack(">Bh", 20, 0) + (number(0) if version == 4 else b"") + b"\0\0" + number(1)) * 5000
    for tag in (
        value(20, 15, 0, 0, many),  # very many structs of no bytes
        value(20, 15, 0, 1, 0, 2, many),
        value(18, many),
        value(20, 3, many),
        value(20, 3, -8),  # back to before the tag
        value(15, 0, many, 0),
        value(),
        deep,
    ):
        root = b"\0\0" + number(many) + tag
        path = tmp_path / f"a.dm{version}"
        path.write_bytes(
            struct.pack(">i", version) + number(len(root)) + struct.pack(">i", 1) + root + bytes(64)
        )
        assert "DigitalMicrograph" in quickly_refused(path)


def test_links_to_other_files_are_refused(tmp_path):
    write(tmp_path / "other.hspy", IMAGE, "hspy")
    with h5py.File(tmp_path / "a.hspy", "w") as file:
        file.attrs["file_format_version"] = "3.0"
        file["Experiments"] = h5py.ExternalLink("other.hspy", "/Experiments")
    assert "another file" in refused(tmp_path / "a.hspy", defocus=0, **KNOWN)


def test_big_endian_mrc_is_refused(tmp_path):
    with mrcfile.new(tmp_path / "a.mrc") as file:
        file.set_data(IMAGE.astype(">f4"))
    content = (tmp_path / "a.mrc").read_bytes()
    assert content[212:214] == b"\x11\x11"
    assert "big-endian" in refused(tmp_path / "a.mrc", defocus=0, **KNOWN)
