"""Databases of ASE: the layers in them, what is left out, what is refused."""

import json
import sqlite3
from functools import partial

import numpy as np
import pytest
from ase import Atoms
from ase.db import connect
from ase.neighborlist import neighbor_list
from writers import refused as refused_by

from exitwave.readers.ase_database import read_layers
from exitwave.specimens import layers

refused = partial(refused_by, read_layers)


def in_a_box(one):
    box = np.diag([0, 0, 20.0])
    box[:2, :2] = one.cell
    return Atoms(one.numbers, one.positions, cell=box, pbc=(True, True, False))


def distances(one):
    """All distances below 5 Å, Å, in order within each pair of elements."""
    first, second, apart = neighbor_list("ijd", in_a_box(one), 5.0)
    pairs = np.column_stack([one.numbers[first], one.numbers[second], apart])
    return pairs[np.lexsort(pairs.T[::-1])]


@pytest.fixture(params=[".db", ".json"])
def database(request, tmp_path):
    """Rows as C2DB has them, one torn apart by the border of a turned cell, and unsuitable ones."""
    path = tmp_path / f"some{request.param}"
    turned = in_a_box(layers.mos2())
    turned.rotate(90, "x", rotate_cell=True)
    turned.set_cell(turned.cell[[0, 2, 1]])  # a, vacuum, b
    turned.pbc = True
    turned.wrap()
    assert np.ptp(turned.get_scaled_positions()[:, 1]) > 0.5  # torn apart by the border
    with connect(path) as rows:
        rows.write(in_a_box(layers.known_layer("CrI3", "CrI3")), crystal_type="AB3-162-dk")
        rows.write(Atoms("NaCl", [[0, 0, 0], [2.8] * 3], cell=[5.6] * 3, pbc=True))
        rows.write(turned)
        rows.write(in_a_box(layers.graphene()) * (3, 3, 1))
        rows.write(Atoms("H2", [[0, 0, 0], [0, 0, 0.7]]))
        rows.write(Atoms("C", [[0, 0, 0]], cell=[[2, 0, 0], [4, 0, 0], [0, 0, 9]], pbc=(True, True, False)))
    return path


def test_layers_are_found_and_laid_flat(database):
    before = database.read_bytes()
    halide, sulphide = read_layers(database)
    assert (halide.name, halide.prototype) == ("CrI3", "AB3-162-dk")
    assert (sulphide.name, sulphide.prototype) == ("MoS2", "row 3")
    for one, parent in ((halide, layers.known_layer("CrI3", "CrI3")), (sulphide, layers.mos2())):
        assert one.cell[0, 1] == pytest.approx(0, abs=1e-9)
        assert np.sort(np.abs(one.positions[:, 2])) == pytest.approx(np.sort(np.abs(parent.positions[:, 2])))
        assert distances(one) == pytest.approx(distances(parent))
        assert layers.contact(one) == pytest.approx(layers.contact(parent))
    assert database.read_bytes() == before
    assert list(database.parent.iterdir()) == [database]


def test_limits(database):
    assert [one.name for one in read_layers(database, most=1)] == ["CrI3"]
    larger = read_layers(database, most_atoms=18)
    assert [(one.name, one.atoms) for one in larger] == [("CrI3", 8), ("MoS2", 3), ("C", 18)]
    assert "no layer of at most 2 atoms" in refused(database, most_atoms=2)


def test_what_is_no_database_is_refused(tmp_path):
    foreign = tmp_path / "foreign.db"
    connection = sqlite3.connect(foreign)
    connection.execute("CREATE TABLE something (id INTEGER)")
    connection.close()
    (tmp_path / "text.db").write_text("no database\n" * 100, encoding="utf-8")
    (tmp_path / "text.json").write_text("{\n", encoding="utf-8")
    (tmp_path / "list.json").write_text(json.dumps([1, 2]), encoding="utf-8")
    before = foreign.read_bytes()
    assert "no such table" in refused(foreign)
    assert foreign.read_bytes() == before  # ASE would have made its tables
    assert "file is not a database" in refused(tmp_path / "text.db")
    for name in ("text.json", "list.json"):
        assert "not a readable ASE database" in refused(tmp_path / name)


def test_nothing_is_written_into_an_empty_file(tmp_path):
    empty = tmp_path / "empty.db"
    empty.touch()
    assert "not a readable ASE database" in refused(empty)
    assert empty.stat().st_size == 0


def test_what_is_no_file_is_refused(tmp_path):
    pickled = tmp_path / "some.pckl"
    pickled.touch()
    assert "ends in .db or .json" in refused(pickled)
    assert "no such file" in refused(tmp_path / "none.db")
    assert "a folder" in refused(tmp_path)
    assert "not the name of a file" in refused(None)
