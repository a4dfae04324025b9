"""Damaged files at every reader: ``EXITWAVE_FUZZ`` of each format, for long by ``make fuzz``."""

import json
import os
import random
import re

import numpy as np
import pytest
from fuzz import HERE, SLOW, run
from mutations import PLAIN, SPECIAL, mutated
from samples import SAMPLES

from exitwave.errors import InputError
from exitwave.readers import read_images
from exitwave.readers.ase_database import read_layers
from exitwave.readers.cif import read_cif
from exitwave.readers.scans import read_scan

CASES = int(os.environ.get("EXITWAVE_FUZZ", "15"))


@pytest.fixture(scope="module")
def found():
    """What became of some cases of each format, in one process."""
    counts = {kind: max(1, CASES // 15) if kind in SLOW else CASES for kind in SAMPLES}
    return run([f"{kind}:{number}" for kind, count in counts.items() for number in range(count)]), counts


@pytest.mark.parametrize("kind", SAMPLES)
def test_errors_only(found, kind):
    outcomes, counts = found
    assert outcomes[kind]["faults"] == []
    assert outcomes[kind]["read"] + outcomes[kind]["refused"] == counts[kind]
    if counts[kind] > 10:
        assert outcomes[kind]["refused"] > 0  # the damage is not all harmless


def test_a_case_comes_out_the_same_each_time(tmp_path):
    for how in (*PLAIN, *SPECIAL.values()):
        content = bytes(range(256)) * 8 + b'{"a": [1, 2, 3], "word": "other"}' * 20
        random.seed(0)
        first, second = (how(np.random.default_rng(3), content, tmp_path / "mark") for _ in range(2))
        assert first == second, how.__name__
    rng = np.random.default_rng(0)
    damaged = {mutated(rng, content, "json", tmp_path / "mark")[0] for _ in range(100)}
    assert len(damaged) > 80


class TestTheWatch:
    """What would be found: a reader that does each of these is caught."""

    @pytest.mark.parametrize(
        ("does", "fault"),
        [
            ("raise ValueError('x')", "ValueError at"),
            ("import os; os.abort()", "crashes the interpreter"),
            ("while True: pass", "hangs"),
            ("import os; os.system('true')", "did os.system"),
            ("import pickle; pickle.loads(pickle.dumps(path))", "did pickle.find_class"),
            ("open(path.with_name('more'), 'w').close()", "did open"),
            ("path.write_bytes(b'')", "did open"),
            ("eval('1 + 1')", "did compile"),
            (
                "from exitwave.errors import InputError; raise InputError('two\\nlines' + path.name)",
                "2 lines",
            ),
            ("from exitwave.errors import InputError; raise InputError('it is wrong')", "names no file"),
            ("bytearray(2**40)", "MemoryError"),
            ("import socket; socket.socket().connect(('127.0.0.1', 9))", "did socket.connect"),
        ],
    )
    def test_finds(self, tmp_path, monkeypatch, does, fault):
        (tmp_path / "fuzz.py").write_text(
            (HERE / "fuzz.py").read_text().replace("LIMIT = 120.0", "LIMIT = 1.0")
        )
        (tmp_path / "mutations.py").write_text((HERE / "mutations.py").read_text())
        (tmp_path / "samples.py").write_text(
            "from types import SimpleNamespace\n"
            "def check_line(path, error):\n"
            "    assert len(str(error).splitlines()) == 1, '2 lines'\n"
            "    assert path.name in str(error), 'names no file'\n"
            "def make(folder):\n"
            "    (folder / 'a.txt').write_text('some text')\n"
            "    return [folder / 'a.txt']\n"
            "calls = []\n"
            "def read(path):\n"
            "    calls.append(path)\n"
            "    if len(calls) > 1:\n"
            f"        {does}\n"
            "SAMPLES = {'text': SimpleNamespace(make=make, read=read, slow=False, sealed=False)}\n"
        )
        monkeypatch.setattr("fuzz.HERE", tmp_path)
        [told] = run(["text:1"])["text"]["faults"]
        assert fault in told["fault"]


class TestNothingIsRun:
    """Files made to run something, each where a careless reader would."""

    @pytest.fixture
    def mark(self, tmp_path):
        yield tmp_path / "ran"
        assert not (tmp_path / "ran").exists()

    class Pickle:
        def __init__(self, mark):
            self.mark = str(mark)

        def __reduce__(self):
            return (open, (self.mark, "w"))

    def test_pickled_objects_in_npy(self, tmp_path, mark):
        for name, read in (
            ("a.npy", lambda p: read_images(p, defocus=0, sampling=1.0, energy=1e5)),
            ("b.npy", read_scan),
        ):
            np.save(tmp_path / name, np.array([self.Pickle(mark)], dtype=object), allow_pickle=True)
            with pytest.raises(InputError, match=name):
                read(tmp_path / name)

    @pytest.mark.parametrize("where", ["x", "symmetry", "cell", "occupancy"])
    def test_expressions_in_a_cif(self, tmp_path, mark, where):
        code = f"__import__('os').system('touch {mark}')"
        texts = {"x": "0", "cell": "4", "occupancy": "1", "symmetry": "x,y,z"} | {where: f'"{code}"'}
        path = tmp_path / "a.cif"
        path.write_text(
            f"data_a\n_cell_length_a {texts['cell']}\n"
            "_cell_length_b 4\n_cell_length_c 4\n_cell_angle_alpha 90\n"
            "_cell_angle_beta 90\n_cell_angle_gamma 90\n"
            f"loop_\n_symmetry_equiv_pos_as_xyz\n{texts['symmetry']}\n"
            f"loop_\n_atom_site_label\n_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\n"
            f"_atom_site_occupancy\nMg {texts['x']} 0 0 {texts['occupancy']}\n"
        )
        with pytest.raises(InputError, match=r"a\.cif"):
            read_cif(path)

    @pytest.mark.parametrize(
        "field", ["cell", "positions", "constraints", "calculator_parameters", "key_value_pairs"]
    )
    def test_objects_in_a_database(self, tmp_path, mark, field):
        code = {
            "__ase_objtype__": f"__import__('os').system('touch {mark}')",
            "__ndarray__": [[3], "object", ["x"]],
        }
        row = {
            "cell": [[3, 0, 0], [0, 3, 0], [0, 0, 20]], "pbc": [True, True, False], "numbers": [6],
            "positions": [[0, 0, 0]], "ctime": 1.0, "mtime": 1.0, "unique_id": "0" * 32, "user": "x",
        }  # fmt: skip
        row[field] = code
        path = tmp_path / "a.json"
        path.write_text(json.dumps({"1": row, "ids": [1], "nextid": 2}))
        try:
            read_layers(path)
        except InputError as error:
            assert "a.json" in str(error)  # noqa: PT017

    def test_no_other_yaml_than_the_safe_one(self):
        """Its other loaders make any object that a file names."""
        package = HERE.parents[1] / "src" / "exitwave"
        for path in package.rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"\byaml\.(?!safe_load\b)\w*load", text), path
            for word in ("pickle.load", "torch.load(", "allow_pickle=True", "dill", "joblib"):
                assert word not in text, path
