"""``exitwave simulate scan``: shards, what is killed, what is read again."""

import json
from pathlib import Path

import numpy as np
import pytest

from exitwave import records
from exitwave.chapters import scan_shards
from exitwave.readers.scans import read_scan

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = ("--scan", "4x3", "--detector", "16", "--semiangle", "25mrad", "--dose", "1e4", "--lines", "1")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A scan made in one go, with its path."""
    from exitwave.cli.scan_simulation import simulate_scan

    path = tmp_path_factory.mktemp("scan") / "scan.nc"
    simulate_scan(
        "MoS2", path, scan="4x3", detector=16, semiangle="25mrad", dose=1e4, lines=4, vacancy=True,
        defocus="5nm",
    )  # fmt: skip
    return path


def test_the_file_is_one_that_retrieve_reads(whole):
    scan = read_scan(whole)
    assert scan.counts.shape == (4, 3, 16, 16)
    assert scan.calibration.energy == 80e3
    assert scan.calibration.semiangle == pytest.approx(0.025)
    assert scan.calibration.defocus == pytest.approx(50)
    np.testing.assert_allclose(scan.calibration.step, 0.4)
    record = records.load(whole, "diffraction4d")
    assert record["counts"].dtype == np.uint16
    made = records.provenance_of(record)
    assert made["parameters"]["dose"] == 1e4
    assert made["parameters"]["structure"] == "MoS2"
    assert not scan_shards.parts_of(whole).exists()


@pytest.mark.parametrize("workers", [(), ("--workers", "2")], ids=["here", "dask"])
def test_shards_make_the_same_scan(exitwave, tmp_path, whole, workers):
    path = tmp_path / "scan.nc"
    status, _, said = exitwave(
        "simulate", "scan", "MoS2", "-o", path, "--vacancy", "--defocus", "5nm", *SMALL, *workers
    )
    assert status == 0, said
    assert np.array_equal(records.load(path)["counts"], records.load(whole)["counts"])


def test_what_is_killed_goes_on(exitwave, tmp_path, monkeypatch, whole):
    path, made = tmp_path / "scan.nc", []
    shard = scan_shards._shard

    def killed(box, setup, numbers, *rest):
        made.append(numbers[0])
        if len(made) == 3:
            raise KeyboardInterrupt
        return shard(box, setup, numbers, *rest)

    monkeypatch.setattr(scan_shards, "_shard", killed)
    call = ("simulate", "scan", "MoS2", "-o", path, "--vacancy", "--defocus", "5nm", *SMALL)
    assert exitwave(*call)[0] != 0
    assert not path.exists()
    assert made == [0, 1, 2]
    assert exitwave(*call)[0] == 0
    assert made == [0, 1, 2, 2, 3]
    assert np.array_equal(records.load(path)["counts"], records.load(whole)["counts"])


def test_parts_of_another_scan_are_left_alone(exitwave, tmp_path):
    path = tmp_path / "scan.nc"
    folder = scan_shards.parts_of(path)
    folder.mkdir()
    (folder / "scan.json").write_text(json.dumps({"scan": "another", "lines": 1}))
    status, _, said = exitwave("simulate", "scan", "MoS2", "-o", path, *SMALL)
    assert status == 2
    assert "parts of another scan" in said
    assert (folder / "scan.json").read_text() == json.dumps({"scan": "another", "lines": 1})


def test_a_damaged_part_is_named(exitwave, tmp_path, monkeypatch):
    path = tmp_path / "scan.nc"
    call = ("simulate", "scan", "graphene", "-o", path, *SMALL)
    monkeypatch.setattr(scan_shards, "forget", lambda _: None)
    assert exitwave(*call)[0] == 0
    part = scan_shards.parts_of(path) / "lines-00002.nc"
    part.write_bytes(part.read_bytes()[:200])
    status, _, said = exitwave(*call)
    assert status == 2
    assert "lines-00002.nc" in said
    assert "remove it" in said
    assert part.stat().st_size == 200


def test_a_crystal_along_a_zone(exitwave, tmp_path):
    cif = tmp_path / "au.cif"
    cif.write_text(
        "data_Au\n_cell_length_a 4.08\n_cell_length_b 4.08\n_cell_length_c 4.08\n_cell_angle_alpha 90\n"
        "_cell_angle_beta 90\n_cell_angle_gamma 90\n_space_group_name_H-M_alt 'F m -3 m'\nloop_\n"
        "_space_group_symop_operation_xyz\n'x,y,z'\n'x,y+1/2,z+1/2'\n'x+1/2,y,z+1/2'\n'x+1/2,y+1/2,z'\n"
        "loop_\n_atom_site_label\n_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\nAu 0 0 0\n"
    )
    path = tmp_path / "scan.nc"
    status, said, wrong = exitwave(
        "simulate", "scan", cif, "-o", path, "--zone", "1 1 0", "--thickness", "2nm", "--scan", "2x2",
        "--detector", "16",
    )  # fmt: skip
    assert status == 0, wrong
    counts = records.load(path, "diffraction4d")["counts"]
    assert counts.dtype == np.float32
    assert 0.3 < float(counts.sum(("ky", "kx")).mean()) < 1
    assert "of the electrons reach the detector" in said


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("Mo9", "--scan", "2x2"), "no such CIF, nor one of"),
        (("MoS2", "--scan", "64"), "y x x"),
        (("MoS2", "--semiangle", "20"), "such as 20mrad"),
        (("MoS2", "--drift", "1Å"), "two lengths"),
    ],
)
def test_bad_input(exitwave, tmp_path, given, said):
    status, _, wrong = exitwave("simulate", "scan", given[0], "-o", tmp_path / "s.nc", *given[1:])
    assert status == 2
    assert said in wrong
    assert not list(Path(tmp_path).iterdir())
