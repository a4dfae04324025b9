"""OVF files: every flavour read and written, units asked for, damage refused."""

import os
import time
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from writers import OVF_REPRESENTATIONS, OVF_VERSIONS, ovf_bytes
from writers import refused as refused_by

from exitwave import records
from exitwave.errors import InputError
from exitwave.readers import read_ovf, write_ovf

FLAVOURS = [(version, kind) for version in OVF_VERSIONS for kind in OVF_REPRESENTATIONS]
refused = partial(refused_by, read_ovf)
flavours = pytest.mark.parametrize(("version", "representation"), FLAVOURS)

vectors = array_shapes(min_dims=3, max_dims=3, max_side=4).flatmap(
    lambda shape: arrays(np.float32, (*shape, 3), elements=st.floats(-2e6, 2e6, width=32))
)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("ovf") / "file.ovf"


def write(path, content):
    path.write_bytes(content)
    return path


def example(shape=(2, 3, 4)):
    return np.random.default_rng(1).normal(scale=5e5, size=(*shape, 3))


@flavours
@settings(max_examples=20, deadline=None)
@given(values=vectors)
def test_every_flavour_gives_back_what_was_written(scratch, version, representation, values):
    record = read_ovf(
        write(scratch, ovf_bytes(values.astype(float), (3e-9, 2e-9, 1e-9), version, representation))
    )
    assert record["magnetisation"].dims == ("component", "z", "y", "x")
    assert record["magnetisation"].attrs["units"] == "A/m"
    np.testing.assert_array_equal(record["magnetisation"], np.moveaxis(values, -1, 0))
    np.testing.assert_allclose(record.attrs["cell"], [30, 20, 10])
    for axis, size in zip("zyx", (30, 20, 10), strict=True):
        np.testing.assert_allclose(record[axis], size * np.arange(record.sizes[axis]))


@pytest.mark.parametrize("representation", OVF_REPRESENTATIONS)
@settings(max_examples=20, deadline=None)
@given(values=vectors, cell=st.tuples(*3 * [st.floats(0.1, 1e4)]))
def test_what_is_written_reads_back(scratch, representation, values, cell):
    record = records.magnetisation(np.moveaxis(values, -1, 0).astype(float), cell=cell)
    again = read_ovf(write_ovf(record, scratch, representation=representation))
    np.testing.assert_array_equal(again["magnetisation"], record["magnetisation"])
    np.testing.assert_allclose(again.attrs["cell"], cell)


@flavours
def test_a_cut_file_is_refused_or_whole(scratch, version, representation):
    content = ovf_bytes(example(), version=version, representation=representation)
    whole = read_ovf(write(scratch, content))
    slack = len("# End: Data Binary 8\n# End: Segment\n")
    for end in sorted({*range(0, len(content), 7), *range(len(content) - 2 * slack, len(content))}):
        try:
            record = read_ovf(write(scratch, content[:end]))
        except InputError as error:
            assert len(str(error).splitlines()) == 1  # noqa: PT017
        else:
            assert end > len(content) - slack
            np.testing.assert_array_equal(record["magnetisation"], whole["magnetisation"])


@flavours
@settings(max_examples=60, deadline=None)
@given(position=st.integers(0, 10**6), byte=st.integers(0, 255))
def test_a_wrong_byte_is_refused_or_readable(scratch, version, representation, position, byte):
    content = bytearray(ovf_bytes(example(), version=version, representation=representation))
    content[position % len(content)] = byte
    try:
        record = read_ovf(write(scratch, bytes(content)))
    except InputError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017
    else:
        records.validate(record, "magnetisation")


@pytest.mark.parametrize("unit", ["", "1", "{}", "{} {} {}", "Ms", "None"])
def test_unit_vectors_need_a_saturation(scratch, unit):
    version = "1.0" if unit in ("", "Ms") else "2.0"
    write(scratch, ovf_bytes(example() / 5e5, version=version, valueunit=unit))
    assert "saturation=" in refused(scratch)
    record = read_ovf(scratch, saturation=5e5)
    np.testing.assert_allclose(record["magnetisation"].values, np.moveaxis(example(), -1, 0))
    for wrong in (0, -1, np.nan, "much"):
        assert "saturation" in refused(scratch, saturation=wrong)


@pytest.mark.parametrize(("unit", "factor"), [("A/m", 1), ("kA/m", 1e3), ("MA/m", 1e6)])
def test_the_multiplier_and_prefixes_count(scratch, unit, factor):
    write(scratch, ovf_bytes(example(), version="1.0", valueunit=unit, multiplier=2.5))
    for saturation in (None, 1e6):  # which only unit vectors need
        record = read_ovf(scratch, saturation=saturation)
        np.testing.assert_allclose(record["magnetisation"], 2.5 * factor * np.moveaxis(example(), -1, 0))


@pytest.mark.parametrize("unit", ["m", "T", "J/m^3", "{A m}"])
def test_other_units_are_refused(scratch, unit):
    assert "valueunit" in refused(write(scratch, ovf_bytes(example(), valueunit=unit)), saturation=1e6)


def test_components_must_have_one_unit(scratch):
    write(scratch, ovf_bytes(example()).replace(b"A/m A/m A/m", b"A/m A/m kAm"))
    assert "one unit" in refused(scratch)


@pytest.mark.parametrize(("unit", "factor"), [("m", 1e10), ("nm", 10), ("um", 1e4), ("Å", 1)])
def test_the_mesh_has_its_unit(scratch, unit, factor):
    record = read_ovf(write(scratch, ovf_bytes(example(), (3, 2, 1), meshunit=unit)))
    np.testing.assert_allclose(record.attrs["cell"], np.array([3, 2, 1]) * factor)


@pytest.mark.parametrize("unit", ["", "unknown", "furlong"])
def test_an_unknown_mesh_unit_needs_a_cell(scratch, unit):
    write(scratch, ovf_bytes(example(), (1, 1, 1), meshunit=unit, version="1.0", valueunit="Ms"))
    message = refused(scratch)
    assert "cell=" in message
    assert "saturation=" in message
    assert read_ovf(scratch, cell=(30, 20, 10), saturation=1.0).attrs["cell"] == [30, 20, 10]
    for wrong in (5, (1, 2), (1, 2, 0), (1, 2, np.inf), "abc"):
        assert "cell" in refused(scratch, cell=wrong, saturation=1.0)


def header(**changes):
    """Return an 8-byte OVF 2.0 file with fields of its header replaced."""
    lines = []
    for line in ovf_bytes(example()).split(b"# End: Header")[0].decode().splitlines():
        label = line.partition(":")[0].strip("# ").replace(" ", "").lower()
        lines.append(f"# {label}: {changes[label]}" if label in changes else line)
    return "\n".join(lines).encode() + b"\n# End: Header" + ovf_bytes(example()).split(b"# End: Header")[1]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"xnodes": "0"}, "xnodes"),
        ({"xnodes": "-4"}, "xnodes"),
        ({"xnodes": "4.5"}, "xnodes"),
        ({"xnodes": "9" * 5000}, "xnodes"),
        ({"xnodes": "999999999999999999", "ynodes": "999999999999999999"}, "bytes"),
        ({"xnodes": "3"}, "End: Data"),
        ({"xstepsize": "0"}, "xstepsize"),
        ({"ystepsize": "nan"}, "ystepsize"),
        ({"zstepsize": "wide"}, "zstepsize"),
        ({"zstepsize": "1e308"}, "cell"),
        ({"valuedim": "1"}, "valuedim"),
        ({"meshtype": "irregular"}, "irregular"),
        ({"segmentcount": "2"}, "segment count"),
    ],
)
def test_a_wrong_header_is_refused(scratch, changes, word):
    assert word in refused(write(scratch, header(**changes)))


@pytest.mark.parametrize("kind", ["text", "binary 4"])
def test_absurd_sizes_allocate_nothing(scratch, kind):
    content = ovf_bytes(example(), representation=kind)
    content = content.replace(b"x nodes: 4", b"x nodes: 99999999999999")
    start = time.process_time()
    refused(write(scratch, content))
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "not an OVF file"),
        (b"hello\nworld\n", "not an OVF file"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "not an OVF file"),
        (b"# OOMMF OVF 3.0\n" * 9, "version"),
        (b"# OOMMF OVF 2.0\n# Title: x\n", "truncated"),
        (b"# OOMMF: irregular mesh v1.0\n# Begin: Data Text\n", "irregular"),
        (b"# OOMMF OVF 2.0\n# Begin: Data Binary 2\n", "representation"),
        (b"# OOMMF OVF 2.0\n# Begin: Data Text\n", "xnodes"),
        (b"# OOMMF OVF 2.0\nxnodes: 4\n# Begin: Data Text\n", "'#'"),
    ],
)
def test_foreign_files_are_refused(scratch, content, word):
    assert word in refused(write(scratch, content)).replace("znodes", "xnodes")


@pytest.mark.parametrize("word", [b"nan", b"inf", b"1e999"])
def test_values_must_be_finite(scratch, word):
    content = ovf_bytes(np.ones((1, 1, 2, 3)), representation="text").replace(
        b" 1.0\t", b" " + word + b"\t", 1
    )
    assert "not finite" in refused(write(scratch, content))


def test_words_in_the_data_are_refused(scratch):
    content = ovf_bytes(np.ones((1, 1, 2, 3)), representation="text")
    assert "not numbers" in refused(write(scratch, content.replace(b" 1.0\t", b" one\t", 1)))
    assert "5 numbers" in refused(write(scratch, content.replace(b" 1.0\t", b"", 1)))


def test_swapped_bytes_are_refused(scratch):
    content = ovf_bytes(example(), version="1.0").replace(b"OOMMF: rectangular mesh v1.0", b"OOMMF OVF 2.0")
    assert "check value" in refused(write(scratch, content))


def test_comments_blank_lines_and_line_ends_do_not_matter(scratch):
    content = ovf_bytes(np.ones((1, 2, 2, 3)), representation="text")
    content = content.replace(b"\n# End: Data", b"\n# ## done\n\n# End: Data").replace(b"\n", b"\r\n")
    assert (
        read_ovf(write(scratch, content.replace(b"Begin: Data Text", b"BEGIN:data   TEXT")))["magnetisation"]
        == 1
    ).all()


def test_a_missing_file_is_one_line(tmp_path):
    assert "no such file" in refused(tmp_path / "none.ovf")
    assert "a folder" in refused(tmp_path)
    assert "no such file" in refused(tmp_path / "a\nb.ovf")
    assert "no such file" in refused("a\0b.ovf")
    assert "not the name" in refused(5)


def test_a_written_file_is_whole_or_absent(tmp_path, monkeypatch):
    record = records.magnetisation(np.ones((3, 1, 2, 2)), cell=(10, 10, 10))

    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        write_ovf(record, tmp_path / "m.ovf")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("record", "kind", "word"),
    [
        (records.phase(np.ones((2, 2)), sampling=1.0, energy=2e5), "text", "variable"),
        (records.magnetisation(np.ones((3, 1, 1, 1)), cell=(1, 1, 1)), "binary 2", "representation"),
        (records.magnetisation(np.full((3, 1, 1, 1), 1e300), cell=(1, 1, 1)), "binary 4", "single precision"),
        (records.magnetisation(np.ones((3, 1, 1, 1)), cell=(1, 1, 1)).drop_attrs(), "text", "cell"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, record, kind, word):
    with pytest.raises(InputError, match=word):
        write_ovf(record, tmp_path / "m.ovf", representation=kind)
    assert list(tmp_path.iterdir()) == []


def test_text_of_500_by_500_cells_takes_about_a_second(scratch):
    record = records.magnetisation(np.random.default_rng(0).normal(size=(3, 1, 500, 500)), cell=(50, 50, 50))
    write_ovf(record, scratch, representation="text")
    start = time.process_time()
    again = read_ovf(scratch)
    assert time.process_time() - start < 2  # 0.4 s on a quiet machine
    np.testing.assert_array_equal(again["magnetisation"], record["magnetisation"])


# --- against other programs --------------------------------------------------------------------------------


def oracle(path):
    """Return the vectors and the cell as discretisedfield reads a file, whose axes are x, y, z."""
    field = pytest.importorskip("discretisedfield").Field.from_file(path)
    return field.array.transpose(3, 2, 1, 0), np.array(field.mesh.cell)[::-1]


@pytest.mark.oracle
@flavours
def test_discretisedfield_reads_the_same(scratch, version, representation):
    content = ovf_bytes(example(), version=version, representation=representation)
    # It knows no comments and takes labels by the letter.
    plain = (
        content.replace(b" ## a comment", b"")
        .replace(b" nodes:", b"nodes:")
        .replace(b"StepSize", b"stepsize")
    )
    plain = plain.replace(b"# X", b"# x").replace(b"# Y", b"# y").replace(b"# Z", b"# z").replace(b"\t", b" ")
    values, cell = oracle(write(scratch, plain))
    record = read_ovf(scratch)
    np.testing.assert_array_equal(record["magnetisation"], values)
    np.testing.assert_allclose(record.attrs["cell"], cell * 1e10)


@pytest.mark.oracle
@pytest.mark.parametrize("representation", OVF_REPRESENTATIONS)
def test_discretisedfield_reads_what_is_written(scratch, representation):
    record = records.magnetisation(np.moveaxis(example(), -1, 0).astype(np.float32), cell=(30, 20, 10))
    values, cell = oracle(write_ovf(record, scratch, representation=representation))
    np.testing.assert_array_equal(record["magnetisation"], values)
    np.testing.assert_allclose(record.attrs["cell"], cell * 1e10)


@pytest.mark.oracle
@pytest.mark.parametrize("representation", ["txt", "bin4", "bin8"])
def test_what_discretisedfield_writes_is_read(scratch, representation):
    df = pytest.importorskip("discretisedfield")
    mesh = df.Mesh(p1=(0, 0, 0), p2=(4e-9, 6e-9, 6e-9), n=(4, 3, 2))
    values = example().transpose(2, 1, 0, 3).astype(np.float32)
    df.Field(mesh, nvdim=3, value=values, unit="A/m").to_file(scratch, representation=representation)
    record = read_ovf(scratch)
    np.testing.assert_allclose(record["magnetisation"], values.transpose(3, 2, 1, 0), rtol=1e-6)
    np.testing.assert_allclose(record.attrs["cell"], [30, 20, 10])


OOMMF_FILES = {
    # name: arguments it needs
    "pillar-start.omf": {"saturation": 1.0},
    "spiral.omf": {"saturation": 1.0, "cell": (1, 1, 1)},
    "stdprob3v-reg.omf": {},
    "stdprob4-cs2.50x2.50x3.00-start.omf": {"saturation": 1.0},
    "stdprob5.omf": {},
    "stdproba.omf": {"saturation": 1.0, "cell": (1, 1, 1)},
    "tiny.omf": {"cell": (60, 50, 40)},
    "yoyo_start.omf": {"saturation": 1.0},
}


@pytest.mark.external
@pytest.mark.oracle
@pytest.mark.parametrize("name", OOMMF_FILES)
@pytest.mark.filterwarnings("ignore:The inplace keyword:DeprecationWarning")  # discretisedfield with pandas 3
def test_files_of_oommf_read_as_discretisedfield_reads_them(external_data, name):
    path = external_data / "micromagnetics_oommf" / name
    record = read_ovf(path, **OOMMF_FILES[name])
    values, cell = oracle(path)
    multiplier = 1e3 if name == "tiny.omf" else 1.0  # discretisedfield leaves valuemultiplier out
    np.testing.assert_allclose(record["magnetisation"], multiplier * values, rtol=1e-12)
    if "cell" not in OOMMF_FILES[name]:
        np.testing.assert_allclose(record.attrs["cell"], cell * 1e10, rtol=1e-6)
    for argument in OOMMF_FILES[name]:
        assert f"{argument}=" in refused(path)


@pytest.mark.external
def test_a_displacement_of_oommf_is_refused(external_data):
    path = external_data / "micromagnetics_oommf" / "Ni_ellipse_sub12um_p212nm_pulse_b4.100000.ovf"
    assert "valueunit is 'm'" in refused(path, saturation=1.0)


@pytest.mark.external
def test_the_islands_of_mumax_are_unit_vectors(external_data):
    record = read_ovf(external_data / "lorentz_pylorentz" / "example_mumax.ovf", saturation=8e5)
    assert record["magnetisation"].shape == (3, 1, 500, 500)
    np.testing.assert_allclose(record.attrs["cell"], 50.0)
    length = np.linalg.norm(record["magnetisation"].values, axis=0)
    magnetic = length > 0
    assert 0.1 < magnetic.mean() < 0.9
    np.testing.assert_allclose(length[magnetic], 8e5, rtol=1e-5)
