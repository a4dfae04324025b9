"""CIFs: what they say, what they leave out, what is wrong with them."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exitwave.errors import InputError
from exitwave.readers import cif
from exitwave.readers.cif import cif_files, read_cif, read_cif_folder
from exitwave.specimens import prototypes

CELL = """_cell_length_a 4.2(1)
_cell_length_b 4.2
_cell_length_c 4.2
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
"""
GROUP = "_space_group_IT_number 225\n"
SITES = """loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
_atom_site_U_iso_or_equiv
Mg1 Mg2+ 0 0 0 0.75 0.005(1)
Fe1 Fe2+ 0 0 0 0.25 .
O1 O2- 0.5 0.5 0.5 1 ?
"""
ANISOTROPIC = """loop_
_atom_site_aniso_label
_atom_site_aniso_U_11
_atom_site_aniso_U_22
_atom_site_aniso_U_33
_atom_site_aniso_U_12
_atom_site_aniso_U_13
_atom_site_aniso_U_23
Mg1 1 1 1 0 0 0
O1 0.004 0.008 0.006 0.001 0.001 0.001
"""
OXIDE = "data_oxide\n" + CELL + GROUP + SITES


def write(folder, text, name="crystal.cif"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def refused(path, **arguments):
    with pytest.raises(InputError) as error:
        read_cif(path, **arguments)
    message = str(error.value)
    assert len(message.splitlines()) == 1
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def test_occupancies_and_debye_waller_factors(tmp_path):
    one = read_cif(write(tmp_path, OXIDE + ANISOTROPIC))
    assert one.formula == one.name == "Mg3FeO4"
    assert (one.space_group, one.lattice_parameter) == (225, pytest.approx(4.2))
    for number, share, u in ((12, 0.75, 0.005), (26, 0.25, 0.0), (8, 1.0, 0.006)):
        mine = one.numbers == number
        assert mine.sum() == 4
        np.testing.assert_allclose(one.occupancies[mine], share)
        np.testing.assert_allclose(one.debye_waller[mine], 8 * np.pi**2 * u)


def test_b_iso_is_taken_as_it_is(tmp_path):
    one = read_cif(write(tmp_path, OXIDE.replace("U_iso_or", "B_iso_or")))
    assert one.debye_waller[0] == 0.005


def test_anisotropic_factors_of_a_hexagonal_cell(tmp_path):
    # <u^2> = 0.01 Å^2 in every direction is U11 = U22 = U33 = 0.01, U12 = 0.005 on hexagonal axes.
    text = OXIDE.replace("gamma 90", "gamma 120").replace("225", "191")
    text = text.replace("O1 O2- 0.5 0.5 0.5", "O1 O2- 0.333 0.667 0.5")
    one = read_cif(
        write(
            tmp_path,
            text + ANISOTROPIC.replace("0.004 0.008 0.006 0.001 0.001 0.001", "0.01 0.01 0.01 0.005 0 0"),
        )
    )
    oxygen = one.numbers == 8
    np.testing.assert_allclose(one.debye_waller[oxygen], 8 * np.pi**2 * 0.01)
    # Rounded positions come to the three-fold axis.
    np.testing.assert_allclose(np.sort(one.positions[oxygen][:, 0]), [1 / 3, 2 / 3], atol=1e-9)


def test_deuterium_is_hydrogen(tmp_path):
    shared = OXIDE.replace("Mg1 Mg2+", "D1 D").replace("Fe1 Fe2+", "H1 H")
    one = read_cif(write(tmp_path, shared))
    assert one.formula == "HO"
    assert one.occupancies[one.numbers == 1].sum() == 4


def test_place_holders_and_repeated_atoms_are_left_out(tmp_path):
    text = OXIDE + "O2 O2- 0 0.5 0 1 ?\nX1 C 0.25 0.25 0.25 0 ?\n"  # an image of O1; a dummy
    assert read_cif(write(tmp_path, text)).formula == "Mg3FeO4"


def test_an_element_from_the_label(tmp_path):
    text = (
        OXIDE.replace("_atom_site_type_symbol\n", "")
        .replace("Mg2+ ", "")
        .replace("Fe2+ ", "")
        .replace("O2- ", "")
    )
    assert read_cif(write(tmp_path, text)).formula == "Mg3FeO4"


def test_both_origins_of_silicon(tmp_path):
    axes = "".join(f"_atom_site_fract_{axis}\n" for axis in "xyz")
    sites = f"loop_\n_atom_site_label\n{axes}Si1 {{0}} {{0}} {{0}}\n"
    text = (
        "data_Si\n" + CELL.replace("4.2", "5.431") + "_symmetry_space_group_name_H-M 'F d -3 m {}'\n" + sites
    )
    first = read_cif(write(tmp_path, text.replace("{}", ":1").format("0")))
    second = read_cif(write(tmp_path, text.replace("{}", ":2").format("0.125")))
    assert (first.space_group, first.setting, second.setting) == (227, "1", "2")
    assert len(first.numbers) == len(second.numbers) == 8
    shifted = prototypes.other_origin(second).positions[:, None] - first.positions
    assert np.abs(shifted - np.rint(shifted)).max(-1).min(1).max() < 1e-9
    assert "two origins" in refused(write(tmp_path, text.replace(" {}", "").format("0")))


def test_several_structures(tmp_path):
    path = write(tmp_path, OXIDE + OXIDE.replace("data_oxide", "data_other").replace("4.2", "4.3"))
    assert "2 structures" in refused(path)
    assert read_cif(path, block="other").lattice_parameter == pytest.approx(4.3)
    assert "no structure in a block 'none'" in refused(path, block="none")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (SITES, "", "no atoms"),
        ("Fe1 Fe2+", "Xx1 Xx", "'Xx' is no element"),
        ("_cell_length_b 4.2\n", "", "no cell, _cell_length_b is missing"),
        ("_cell_length_b 4.2", "_cell_length_b -4.2", "_cell_length_b is -4.2"),
        ("_cell_angle_beta 90", "_cell_angle_beta wide", "_cell_angle_beta is 'wide'"),
        ("gamma 90", "gamma 179.9999", "no volume|not all finite"),
        ("0 0 0 0.25", "0 0 0 1", "occupied 1.75 times"),
        ("0 0 0 0.25", "0 0 0 -0.25", "occupancy -0.25"),
        ("0 0 0 0.75", "0 ? 0 0.75", "'Mg1' has no position"),
        ("0.005(1)", "-0.005(1)", "cannot be negative"),
        ("_fract_z", "_cartn_z", "no fractional coordinates"),
        (GROUP, "_symmetry_space_group_name_H-M 'F d -5 m'\n", "space group 'F d -5 m' is not known"),
        (GROUP, "loop_\n_symmetry_equiv_pos_as_xyz\nx,y,z\n-y,x,z\n", "not complete"),
        (GROUP, "loop_\n_symmetry_equiv_pos_as_xyz\nx,y,z\nx+0.1,y,z\n", "not those of a space group"),
        ("1 ?\n", "1\n", "not a readable CIF file"),
        ("data_oxide", "once upon a time", "not a readable CIF file"),
    ],
)  # fmt: skip
def test_bad_files(tmp_path, old, new, says):
    assert old in OXIDE
    assert re.search(says, refused(write(tmp_path, OXIDE.replace(old, new))))


def test_sizes_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(cif, "MOST_SITES", 2)
    path = write(tmp_path, OXIDE)
    assert "3 atom sites" in refused(path)
    monkeypatch.setattr(cif, "MOST_BYTES", 100)
    assert f"{len(OXIDE)} bytes" in refused(path)
    assert "no such file" in refused(tmp_path / "none.cif")


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damage_is_one_line_or_a_crystal(folder, data):
    content = bytearray((OXIDE + ANISOTROPIC).encode())
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = folder / "damaged.cif"
    path.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    try:
        one = read_cif(path)
    except InputError:
        assert refused(path)
    else:
        assert np.isfinite(one.positions).all()


def test_a_folder(tmp_path):
    with pytest.raises(InputError, match=r"no \.cif file"):
        read_cif_folder(tmp_path)
    with pytest.raises(InputError, match="no folder"):
        read_cif_folder(tmp_path / "none")
    write(tmp_path, OXIDE, "b.cif")
    write(tmp_path, OXIDE.replace("Mg", "Ca"), "A.CIF")
    write(tmp_path, "not read", "notes.txt")
    assert [one.formula for one in read_cif_folder(tmp_path)] == ["Ca3FeO4", "Mg3FeO4"]


def test_folders_within_folders_and_links_in_a_circle(tmp_path):
    """As a database is downloaded: 1/00/1000000.cif; each file is read once, however many ways lead to it."""
    deep, other = tmp_path / "1" / "00", tmp_path / "2"
    for folder, element in ((tmp_path, "Mg"), (deep, "Ca"), (other, "Sr")):
        folder.mkdir(parents=True, exist_ok=True)
        write(folder, OXIDE.replace("Mg", element), "same.cif")
    (deep / "up").symlink_to(tmp_path, target_is_directory=True)
    (other / "aside").symlink_to(deep, target_is_directory=True)
    (other / "itself").symlink_to(other / "itself")
    assert [str(path.relative_to(tmp_path)) for path in cif_files(tmp_path)] == [
        "1/00/same.cif", "2/same.cif", "same.cif"
    ]  # fmt: skip
    assert [one.formula for one in read_cif_folder(tmp_path)] == ["Ca3FeO4", "Sr3FeO4", "Mg3FeO4"]


def sum_formula(text):
    return {name: float(count or 1) for name, count in re.findall(r"([A-Z][a-z]?)([\d.]*)", text)}


@pytest.mark.external
def test_crystals_of_the_open_database(external_data):
    from ase.data import atomic_masses, chemical_symbols

    folder = external_data / "cif_cod_crystals"
    found = read_cif_folder(folder)
    assert len(found) == 87
    assert sum(one.is_cubic for one in found) == 41
    for one in found:
        text = (folder / one.source).read_text(encoding="latin1")
        said = sum_formula(re.search(r"_chemical_formula_sum\s+'?([^'\n]+)", text)[1])
        totals = {
            chemical_symbols[z]: one.occupancies[one.numbers == z].sum() for z in set(one.numbers.tolist())
        }
        assert set(totals) == set(said)
        ratios = [totals[name] / said[name] for name in said]
        assert max(ratios) == pytest.approx(min(ratios))
        density = re.search(r"_exptl_crystal_density_diffrn\s+([\d.]+)", text)
        if density:
            computed = one.occupancies @ atomic_masses[one.numbers] * 1.66054 / one.volume
            assert computed == pytest.approx(float(density[1]), rel=0.01)
