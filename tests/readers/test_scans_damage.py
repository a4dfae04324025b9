"""Scans that are damaged, foreign, hostile, or do not fit what is asked: one line with a remedy; memory."""

import subprocess
import sys
import time
from functools import partial

import h5py
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_scans import COUNTS, empad, mib, npy, py4dstem, whole
from writers import refused as refused_by

from exitwave.errors import InputError
from exitwave.readers.scans import SUFFIXES, read_scan

refused = partial(refused_by, read_scan)


def hdf5(path, **arrays):
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values
    return path


class TestShapes:
    @pytest.mark.parametrize(
        ("given", "said"),
        [
            (
                (5, 3),
                "12 patterns do not fill a scan of (y, x) = (5, 3): pass shape=(3, 4) or (4, 3) or (2, 6)",
            ),
            (None, "12 patterns fill no square scan: pass shape=(3, 4)"),
        ],
    )
    @pytest.mark.parametrize("kind", ["raw", "mib", "npy", "h5"])
    def test_that_do_not_fit_name_those_that_do(self, tmp_path, kind, given, said):
        path = tmp_path / f"a.{kind}"
        flat = COUNTS.reshape(12, 8, 6)
        if kind == "raw":
            path.write_bytes(COUNTS.tobytes())
            message = refused(path, shape=given, dtype="u1", detector=(8, 6))
        else:
            {"mib": lambda: mib(path, COUNTS, "U08"), "npy": lambda: np.save(path, flat),
             "h5": lambda: hdf5(path, a=flat)}[kind]()  # fmt: skip
            message = refused(path, shape=given)
        assert f"{path}: {said}" in message

    def test_that_contradict_the_file(self, tmp_path):
        assert "a scan of (3, 4), not (4, 3): leave shape out" in refused(npy(tmp_path), shape=(4, 3))
        empad(tmp_path / "a.raw", (2, 3))
        (tmp_path / "a.xml").write_text("<root><pix_x>3</pix_x><pix_y>4</pix_y></root>")
        assert "6 patterns do not fill a scan of (y, x) = (4, 3)" in refused(tmp_path / "a.raw")

    @pytest.mark.parametrize("given", [(0, 12), (3.5, 4), "34", (3,), 12, ("a", 4), (float("inf"), 1)])
    def test_that_are_no_shapes(self, tmp_path, given):
        path = npy(tmp_path, COUNTS.reshape(12, 8, 6))
        assert "is not two positive whole numbers: give (y, x)" in refused(path, shape=given)


class TestFiles:
    @pytest.mark.parametrize("suffix", SUFFIXES)
    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"just some text\n",
            b"x" * 70000,
            bytes(70000),
            b"\x89HDF\r\n\x1a\n" + bytes(3000),
            b"PK\3\4" * 50,
        ],
    )
    def test_that_are_foreign(self, tmp_path, suffix, content):
        path = tmp_path / f"a{suffix}"
        path.write_bytes(content)
        assert str(path) in refused(path)

    def test_that_are_missing_or_unknown(self, tmp_path):
        assert "no such file" in refused(tmp_path / "a.npy")
        (tmp_path / "a.xyz").write_text("x")
        assert "suffix '.xyz' is not known" in refused(tmp_path / "a.xyz")
        assert "pass dtype=... and detector=" in refused(tmp_path / "a.xyz", dtype="u1")

    @pytest.mark.parametrize("cut", [1, 66559, 66561])
    def test_truncated_empad(self, tmp_path, cut):
        empad(tmp_path / "a.raw", (2, 2))
        content = (tmp_path / "a.raw").read_bytes()
        (tmp_path / "a.raw").write_bytes(content[:-cut])
        assert "no whole number of EMPAD frames" in refused(tmp_path / "a.raw")

    @pytest.mark.parametrize("cut", [1, 48, 300])
    def test_truncated_mib(self, tmp_path, cut):
        path = mib(tmp_path / "a.mib", COUNTS, "U08")
        path.write_bytes(path.read_bytes()[:-cut])
        assert "truncated: 11 patterns of 432 bytes and" in refused(path, shape=(3, 4))

    def test_truncated_raw_numbers(self, tmp_path):
        (tmp_path / "a.raw").write_bytes(COUNTS.tobytes()[:-5])
        message = refused(tmp_path / "a.raw", dtype="u1", detector=(8, 6), shape=(3, 4))
        assert "truncated: 11 patterns of 48 bytes and 43 bytes of another" in message

    def test_no_patterns(self, tmp_path):
        (tmp_path / "a.raw").write_bytes(b"abc")
        assert "no patterns" in refused(tmp_path / "a.raw", dtype="u1", detector=(8, 6))
        np.save(tmp_path / "a.npy", COUNTS[:0])
        assert "data of shape (0, 4, 8, 6)" in refused(tmp_path / "a.npy")

    @pytest.mark.parametrize(
        ("values", "said"),
        [
            (COUNTS.astype(complex), "complex values, not counts"),
            (COUNTS[0, 0], "give (scan_y, scan_x, ky, kx)"),
            (COUNTS.astype("S3"), "values of type"),
        ],
    )
    def test_arrays_of_something_else(self, tmp_path, values, said):
        assert said in refused(npy(tmp_path, values))

    def test_no_pickle_is_loaded(self, tmp_path):
        class Pickle:
            def __reduce__(self):
                return (exec, ("raise SystemExit('the pickle was loaded')",))

        np.save(tmp_path / "a.npy", np.array([Pickle()], dtype=object), allow_pickle=True)
        assert "Python objects, not counts" in refused(tmp_path / "a.npy")

    def test_several_arrays_are_named(self, tmp_path):
        path = hdf5(tmp_path / "a.h5", one=COUNTS, two=COUNTS, mask=COUNTS[0])
        assert "2 arrays of patterns, 'one', 'two': pass dataset=..." in refused(path)
        assert "no data set 'three': there are 'one', 'two'" in refused(path, dataset="three")
        assert "data of shape" in refused(hdf5(tmp_path / "b.h5", flat=COUNTS[0, 0]), dataset="flat")
        assert "no array of 3 or 4 axes" in refused(tmp_path / "b.h5")

    def test_raw_mode_of_merlin(self, tmp_path):
        path = mib(tmp_path / "a.mib", COUNTS, "U16")
        path.write_bytes(path.read_bytes().replace(b",U16,", b",R64,"))
        assert "raw mode (R64)" in refused(path)


class TestCalibration:
    @pytest.mark.parametrize(
        ("known", "said"),
        [
            ({"energy": -3}, "energy -3 is not a positive number: give it in eV"),
            ({"step": (1, 0)}, "give it in Å"),
            ({"frequency": "x"}, "give it in 1/Å"),
            ({"rotation": np.nan}, "a finite number: give it in rad"),
        ],
    )
    def test_that_is_none(self, tmp_path, known, said):
        with pytest.raises(InputError, match="is not a") as error:
            read_scan(npy(tmp_path)).calibrated(**known)
        assert said in str(error.value)

    def test_hostile_values_in_a_file_are_not_taken(self, tmp_path):
        path = py4dstem(tmp_path / "a.h5", old=False)
        with h5py.File(path, "r+") as file:
            group = file["datacube_root/metadatabundle/calibration"]
            for name, value in {"R_pixel_size": -1.0, "Q_pixel_size": np.nan, "QR_flip": "x"}.items():
                del group[name]
                group[name] = value
            del group["QR_rotation_degrees"]
            group["QR_rotation_degrees"] = np.ones((5, 5))
        known = read_scan(path).calibration
        assert (known.step, known.frequency, known.rotation) == (None, None, None)

    @pytest.mark.parametrize(
        "view",
        [
            lambda scan: scan.cropped((0, 4), (0, 4)),
            lambda scan: scan.cropped((2, 2), (0, 4)),
            lambda scan: scan.binned(3),
            lambda scan: scan.binned(0),
            lambda scan: scan.mended(torch.zeros(6, 8, dtype=torch.bool)),
            lambda scan: scan.mended(torch.ones(8, 6, dtype=torch.bool)),
            lambda scan: next(scan.blocks(0)),
        ],
    )
    def test_views_that_cannot_be(self, tmp_path, view):
        with pytest.raises(InputError, match=r": (give|use|check) "):
            view(read_scan(npy(tmp_path)))


def quickly_refused(path, **how):
    start = time.process_time()
    message = refused(path, **how)
    assert time.process_time() - start < 2
    return message


class TestHostile:
    def test_sizes_in_npy(self, tmp_path):
        with (tmp_path / "a.npy").open("wb") as file:
            header = {"descr": "<f8", "fortran_order": False, "shape": (10**5, 10**5, 10**6, 10**6)}
            np.lib.format.write_array_header_1_0(file, header)
            file.write(bytes(100))
        quickly_refused(tmp_path / "a.npy")

    @pytest.mark.parametrize("field", [2, 4, 5])
    @pytest.mark.parametrize("value", ["0", "-5", "999999", "99999999999999", "1e3", "", "٣"])
    def test_sizes_in_mib(self, tmp_path, field, value):
        path = mib(tmp_path / "a.mib", COUNTS, "U08")
        content = path.read_bytes()
        fields = content[:384].rstrip(b"\0").decode().split(",")
        fields[field] = value
        path.write_bytes(",".join(fields).encode().ljust(384, b"\0")[:384] + content[384:])
        quickly_refused(path, shape=(3, 4))

    def test_sizes_in_hdf5(self, tmp_path):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file.create_dataset("a", shape=(10**4, 10**4, 256, 256), dtype="u1", chunks=(1, 1, 256, 256))
        assert "declares 6553600000000 bytes" in quickly_refused(tmp_path / "a.h5")

    def test_links_to_other_files(self, tmp_path):
        hdf5(tmp_path / "other.h5", a=COUNTS)
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["a"] = h5py.ExternalLink("other.h5", "/a")
        assert "in another file: copy the data into one file" in refused(tmp_path / "a.h5")
        (tmp_path / "secret").write_bytes(COUNTS.tobytes())
        with h5py.File(tmp_path / "b.h5", "w") as file:
            external = [(str(tmp_path / "secret"), 0, COUNTS.nbytes)]
            file.create_dataset("a", COUNTS.shape, "u1", external=external)
        assert "in another file" in refused(tmp_path / "b.h5")
        layout = h5py.VirtualLayout(COUNTS.shape, "u1")
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "a", COUNTS.shape)
        with h5py.File(tmp_path / "c.h5", "w") as file:
            file.create_virtual_dataset("a", layout)
        assert "in another file" in refused(tmp_path / "c.h5")

    def test_xml_that_names_other_folders_or_grows(self, tmp_path):
        (tmp_path / "in").mkdir()
        empad(tmp_path / "secret.raw", (2, 2))
        xml = tmp_path / "in" / "a.xml"
        xml.write_text("<root><raw_file filename='../secret.raw'/></root>")
        assert "its data a.raw is not beside it" in refused(xml)
        xml.write_text('<!DOCTYPE r [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><root><pix_x>&b;</pix_x></root>')
        assert "declares entities" in refused(xml)
        xml.write_text("<root>" + "x" * 2**20 + "</root>")
        assert "too long" in refused(xml)

    def test_what_hangs_or_crashes_hdf5(self, tmp_path, monkeypatch):
        from exitwave.readers import guards

        path = hdf5(tmp_path / "a.h5", a=COUNTS)
        probe = tmp_path / "hdf5_probe.py"
        monkeypatch.setattr(guards, "__file__", str(tmp_path / "guards.py"))
        monkeypatch.setattr(guards, "PATIENCE", 1.0)
        probe.write_text("while True: pass\n")
        assert "does not end" in refused(path)
        probe.write_text("import os\nos.abort()\n")
        assert "crashes" in refused(path)

    def test_large_data_sets_are_probed_by_their_ends_and_index(self, tmp_path, monkeypatch):
        """A broken chunk between the ends of a large data set is found when it is read, in one line."""
        path = tmp_path / "a.h5"
        values = np.ones((3, 700, 200, 200), "u1")
        with h5py.File(path, "w") as file:
            file.create_dataset(
                "a", data=values, chunks=(1, 100, 200, 200), compression="gzip", compression_opts=1
            )
            place = file["a"].id.get_chunk_info(10)
        assert values.nbytes > 2**26
        with path.open("r+b") as file:
            file.seek(place.byte_offset + place.size // 2)
            file.write(bytes(64))
        scan = read_scan(path)
        next(scan.blocks(1))
        with pytest.raises(InputError, match="not a readable HDF5 file"):
            scan.summary()


KINDS = ("raw", "xml", "npy", "mib", "hdr")


def small(folder, kind):
    """Write a small scan and return its file, the file that is damaged, and how it is read."""
    if kind in ("raw", "xml"):
        (folder / "x.raw").write_bytes(np.ones((2, 130, 128), "<f4").tobytes())
        text = "<root><raw_file filename='x.raw'/><pix_x>2</pix_x><pix_y>1</pix_y><iom_measurements>"
        text += "<full_scan_field_of_view><x>1e-9</x></full_scan_field_of_view></iom_measurements></root>"
        (folder / "x.xml").write_text(text)
        return folder / "x.raw", folder / f"x.{kind}"
    if kind == "npy":
        return npy(folder, name="n.npy"), folder / "n.npy"
    (folder / "m.hdr").write_text(
        "HDR,\nFrames in Acquisition (Number):\t12\nFrames per Trigger (Number):\t4\n"
    )
    return mib(folder / "m.mib", COUNTS, "U08"), folder / ("m.mib" if kind == "mib" else "m.hdr")


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    places=st.lists(st.tuples(st.integers(0, 500), st.integers(0, 255)), min_size=1, max_size=4),
    cut=st.integers(0, 3),
)
def test_wrong_bytes_are_refused_or_readable(folder, kind, places, cut):
    path, damaged = small(folder, kind)
    content = bytearray(damaged.read_bytes())
    for place, byte in places:
        content[place % len(content)] = byte
    damaged.write_bytes(content[: len(content) - cut])
    try:
        scan = read_scan(path, negative="keep")
        found = whole(scan)
    except InputError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017
    else:
        assert found.shape == (*scan.scan_shape, *scan.detector_shape)


@pytest.mark.parametrize("old", [True, False])
def test_wrong_bytes_in_hdf5_are_refused_or_readable(folder, old):
    path = py4dstem(folder / f"{old}.h5", old=old)
    content = path.read_bytes()
    rng = np.random.default_rng(3)
    for place in (*rng.integers(8, 96, 3), *rng.integers(96, len(content), 7)):
        damaged = bytearray(content)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        try:
            whole(read_scan(path))
        except InputError as error:
            assert len(str(error).splitlines()) == 1  # noqa: PT017


_MEASURE = """
import resource, sys
from exitwave.readers.scans import read_scan
kind, path = sys.argv[1:]
how = {"dtype": "uint8", "detector": (256, 256), "shape": (32, 128)} if kind == "raw" else {}
scan = read_scan(path, **how)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
total, kept = 0.0, 0
for _, patterns in scan.blocks(budget=2**25):
    total += float(patterns.sum(dtype=patterns.dtype))
    kept = max(kept, patterns.nbytes)
print(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, int(total), kept)
"""


def test_memory_stays_small(tmp_path):
    """256 MiB of counts in a file with holes, read with a budget of 32 MiB."""
    path = tmp_path / "a.raw"
    with path.open("wb") as file:
        file.truncate(32 * 128 * 256 * 256)
        file.seek(12345678)
        file.write(b"\7")
    command = [sys.executable, "-c", _MEASURE, "raw", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    before, after, total, kept = (int(each) for each in done.stdout.split())
    assert total == 7
    # Kilobytes. A block is float32; the budget counts the counts and three such arrays.
    assert kept <= 2**25
    assert (after - before) * 2**10 < 2 * 2**25
