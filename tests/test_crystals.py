"""Crystals, their table, known structure types, relatives and random ones."""

import numpy as np
import pytest
import spglib
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from exitwave import records
from exitwave.errors import InputError
from exitwave.specimens import crystals, prototypes, random_cubic
from exitwave.specimens.crystals import Crystal

# spglib tells at each call how it will raise errors some day.
pytestmark = pytest.mark.filterwarnings("ignore:Set OLD_ERROR_HANDLING:DeprecationWarning")


@pytest.fixture(scope="module")
def known():
    return prototypes.known_crystals()


def crystal(**changes):
    fields = {
        "name": "CsCl", "cell": 4.0 * np.eye(3), "numbers": [55, 17], "positions": [[0, 0, 0], [0.5] * 3],
        "occupancies": [1, 1], "debye_waller": [0, 0],
    }  # fmt: skip
    return Crystal(**(fields | changes))


def structure_factors(one, indices):
    """Sum of Z occupancy exp(-2 pi i h.x): the atomic number stands for the scattering factor."""
    phases = np.exp(-2j * np.pi * np.asarray(indices) @ one.positions.T)
    return phases @ (one.numbers * one.occupancies)


def space_group(one, tolerance=1e-4):
    """The group spglib finds; entries that share a site make one species of their own."""
    sites = {}
    for position, *species in zip(one.positions, one.numbers, one.occupancies, strict=True):
        sites.setdefault(tuple(np.round(position, 6)), []).append(tuple(species))
    kinds = sorted({tuple(sorted(species)) for species in sites.values()})
    numbers = [kinds.index(tuple(sorted(species))) + 1 for species in sites.values()]
    return spglib.get_symmetry_dataset((one.cell, list(sites), numbers), symprec=tolerance).number


class TestCrystal:
    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            (
                {"numbers": [], "positions": np.zeros((0, 3)), "occupancies": [], "debye_waller": []},
                "no atoms",
            ),
            ({"numbers": [55, 0]}, "no element has the number 0"),
            ({"numbers": [55, 104]}, "104"),
            ({"occupancies": [1, 0]}, "occupancy 0"),
            ({"occupancies": [1, 1.5]}, "occupancy 1.5"),
            ({"debye_waller": [0, -0.1]}, "-0.1"),
            ({"positions": [[0, 0, np.nan], [0.5] * 3]}, "positions are not all finite"),
            ({"positions": [[0, 0, 0]]}, r"\(2, 3\) is needed"),
            ({"cell": np.diag([4.0, 4.0, 0.0])}, "no volume"),
            ({"cell": [[4, 0, 0], [0, 4, 0], [4, 4, 0]]}, "no volume"),
            ({"numbers": ["Cs", "Cl"]}, "numbers are not numbers"),
        ],
    )
    def test_refused(self, changes, says):
        with pytest.raises(InputError, match=says) as error:
            crystal(**changes)
        assert "\n" not in str(error.value)

    def test_properties(self):
        one = crystal(positions=[[-0.25, 1.0, -1e-18], [0.5] * 3])
        assert one.positions[0].tolist() == [0.75, 0.0, 0.0]
        assert one.volume == pytest.approx(64)
        assert one.lattice_parameter == 4.0
        assert one.formula == "CsCl"
        assert crystal(occupancies=[1, 0.5]).formula == "Cs2Cl"
        with pytest.raises(InputError, match=r"4, 4, 5 Å long at 90, 90, 90 degrees"):
            _ = crystal(cell=np.diag([4.0, 4.0, 5.0])).lattice_parameter

    def test_debye_waller_of_all_or_of_what_is_missing(self):
        one = crystal(debye_waller=[0.3, 0])
        assert one.with_debye_waller(0.7).debye_waller.tolist() == [0.7, 0.7]
        assert one.with_debye_waller(0.7, only_missing=True).debye_waller.tolist() == [0.3, 0.7]

    def test_a_cell_of_any_rotation_keeps_its_distance(self):
        turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
        one = crystal(cell=4.0 * turn)
        assert one.is_cubic
        assert crystals.minimum_distance(one) == pytest.approx(2 * 3**0.5)

    @pytest.mark.parametrize("shear", [0, 1, 3])
    def test_any_choice_of_axes_gives_the_same_distance(self, shear):
        primitive = 4.05 / 2 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])  # of fcc
        axes = np.array([[1, 0, 0], [shear, 1, 0], [0, -shear, 1]]) @ primitive
        one = crystal(cell=axes, numbers=[13], positions=[[0.2] * 3], occupancies=[1], debye_waller=[0])
        assert crystals.minimum_distance(one) == pytest.approx(4.05 / 2**0.5)

    def test_ase_and_back(self):
        one = crystal(occupancies=[1, 0.25], debye_waller=[0.1, 0.4])
        back = Crystal.from_atoms(one.to_atoms(), name="CsCl")
        assert crystals.to_table([back]).identical(crystals.to_table([one]))

    def test_partial_occupancies_of_ase(self):
        from ase.spacegroup import crystal as ase_crystal

        atoms = ase_crystal(
            ["Ni", "Cu", "O"], [(0, 0, 0), (0, 0, 0), (0.5, 0.5, 0.5)], spacegroup=225,
            cellpar=[4.2] * 3 + [90] * 3, occupancies=[0.7, 0.3, 1.0], onduplicates="keep",
        )  # fmt: skip
        one = Crystal.from_atoms(atoms)
        assert one.space_group == 225
        assert [one.occupancies[one.numbers == z].sum() for z in (28, 29, 8)] == pytest.approx([2.8, 1.2, 4])


@st.composite
def any_crystals(draw):
    n = draw(st.integers(1, 5))
    unit = st.floats(0, 1, exclude_max=True)
    return Crystal(
        name=draw(st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8)),
        cell=np.diag(draw(npst.arrays(float, 3, elements=st.floats(1, 20)))),
        numbers=draw(npst.arrays(np.int64, n, elements=st.integers(1, 103))),
        positions=draw(npst.arrays(float, (n, 3), elements=unit)),
        occupancies=draw(npst.arrays(float, n, elements=st.floats(0.01, 1))),
        debye_waller=draw(npst.arrays(float, n, elements=st.floats(0, 5))),
        space_group=draw(st.none() | st.integers(195, 230)),
        setting=draw(st.sampled_from(["", "1", "2"])),
    )


@settings(max_examples=25, deadline=None)
@given(ones=st.lists(any_crystals(), min_size=1, max_size=4))
def test_a_table_keeps_every_bit(ones, tmp_path_factory):
    table = crystals.to_table(ones)
    path = records.save(table, tmp_path_factory.mktemp("tables") / "crystals.nc")
    for one, back in zip(ones, crystals.from_table(records.load(path)), strict=True):
        for field in ("cell", "numbers", "positions", "occupancies", "debye_waller"):
            np.testing.assert_array_equal(getattr(back, field), getattr(one, field))
        for field in ("name", "space_group", "setting", "prototype", "source"):
            assert getattr(back, field) == getattr(one, field)


def test_no_table():
    with pytest.raises(InputError, match="no crystals"):
        crystals.to_table([])
    with pytest.raises(InputError, match="cell is missing"):
        crystals.from_table(crystals.to_table([crystal()]).drop_vars("cell"))


class TestKnownCrystals:
    def test_size(self, known):
        assert len(prototypes.load_prototypes()) >= 30
        assert len(known) >= 250
        assert len({(one.prototype, one.formula) for one in known}) == len(known)

    def test_spglib_finds_the_space_group_of_each_type(self, known):
        first = {one.prototype: one for one in reversed(known)}
        assert {name: space_group(one) for name, one in first.items()} == {
            name: one.space_group for name, one in first.items()
        }

    def test_atoms_keep_a_chemical_distance(self, known):
        # From U-U in CoU, 2.77 Å for a sum of radii of 3.92 Å, to Tl-Cl with eight neighbours, 3.32 Å for
        # 2.47 Å. A wrong Wyckoff position gives half, a digit lost a tenth more or less for most.
        contacts = {(one.prototype, one.formula): prototypes.closest_contact(one) for one in known}
        assert min(contacts.values()) > 0.7
        assert max(contacts.values()) < 1.35

    @pytest.mark.parametrize(
        ("formula", "prototype", "density"),  # g/cm^3, CRC Handbook
        [
            ("NaCl", "rock salt", 2.17), ("GaAs", "zincblende", 5.32), ("CaF2", "fluorite", 3.18),
            ("SrTiO3", "perovskite", 5.12), ("MgAl2O4", "spinel", 3.58), ("FeS2", "pyrite", 5.02),
            ("Y2O3", "bixbyite", 5.03), ("Cu2O", "Cu2O", 6.0), ("LaB6", "CaB6", 4.72), ("Au", "fcc", 19.3),
            ("Y3Al5O12", "garnet", 4.56), ("Si", "diamond", 2.33), ("Mn", "alpha-Mn", 7.3),
        ],
    )  # fmt: skip
    def test_density(self, known, formula, prototype, density):
        from ase.data import atomic_masses

        (one,) = (one for one in known if (one.formula, one.prototype) == (formula, prototype))
        computed = one.occupancies @ atomic_masses[one.numbers] * 1.66054 / one.volume
        assert computed == pytest.approx(density, rel=0.03)

    def test_absences(self, known):
        h, k, i = np.mgrid[-4:5, -4:5, -4:5].reshape(3, -1)
        indices = np.stack([h, k, i], axis=1)
        mixed = ((h % 2 + k % 2 + i % 2) % 3) != 0
        # Atoms on special positions of diamond: 222 and 200 are extinct as well.
        all_even = (h % 2 == 0) & (k % 2 == 0) & (i % 2 == 0)
        diamond_glide = all_even & ((h + k + i) % 4 == 2)
        by_name = {(one.prototype, one.formula): one for one in known}
        for key, absent in {
            ("rock salt", "NaCl"): mixed,
            ("diamond", "Si"): mixed | diamond_glide,
            ("spinel", "MgAl2O4"): mixed | ((h == 0) & all_even & ((k + i) % 4 == 2)),
        }.items():
            amplitudes = np.abs(structure_factors(by_name[key], indices))
            assert amplitudes[absent].max() < 1e-6 * amplitudes.max()
            if key[0] != "spinel":  # which has weak reflections
                present = ~mixed & ~diamond_glide
                assert amplitudes[present].min() > 1e-3 * amplitudes.max()

    def test_debye_waller_factors_where_known(self, known):
        one = next(one for one in known if one.formula == "SrTiO3")
        assert one.debye_waller.tolist() == [0.62, 0.44, 0.72, 0.72, 0.72]


class TestOtherOrigin:
    @pytest.mark.parametrize("group", [201, 203, 222, 224, 227, 228])
    def test_it_obeys_the_operations_of_the_first_origin(self, group):
        from ase.spacegroup import Spacegroup

        second = orbit_of(Spacegroup(group, 2), group, "2")
        first = prototypes.other_origin(second)
        assert first.setting == "1"
        rotations, translations = map(np.array, zip(*Spacegroup(group, 1).get_symop(), strict=True))
        expected = crystals.orbit(rotations, translations, first.positions[0])
        np.testing.assert_allclose(in_order(first.positions), in_order(expected), atol=1e-9)
        np.testing.assert_allclose(
            in_order(prototypes.other_origin(first).positions), in_order(second.positions), atol=1e-9
        )

    def test_only_phases_change(self, known):
        one = next(one for one in known if one.prototype == "spinel")
        other = prototypes.other_origin(one)
        indices = np.array([[1, 1, 1], [2, 2, 0], [3, 1, 1], [4, 0, 0]])
        mine, theirs = structure_factors(one, indices), structure_factors(other, indices)
        np.testing.assert_allclose(np.abs(theirs), np.abs(mine), rtol=1e-9)
        assert np.abs(mine.imag).max() < 1e-9 * np.abs(mine).max()  # a centre of symmetry at the origin
        assert abs(theirs[0].imag) > 0.3 * abs(theirs[0])  # and none: 111 turns by 3 pi / 4

    def test_no_other(self, known):
        with pytest.raises(InputError, match="one origin"):
            prototypes.other_origin(next(one for one in known if one.space_group == 225))
        with pytest.raises(InputError, match="setting ''"):
            prototypes.other_origin(crystal(space_group=227))


def orbit_of(group, number, setting):
    rotations, translations = map(np.array, zip(*group.get_symop(), strict=True))
    positions = crystals.orbit(rotations, translations, np.array([0.037, 0.111, 0.263]))
    full = np.ones(len(positions))
    return crystal(
        numbers=14 * full, positions=positions, occupancies=full, debye_waller=0 * full, space_group=number,
        setting=setting,
    )  # fmt: skip


def in_order(positions):
    rounded = np.round(positions, 6) % 1.0
    return rounded[np.lexsort(rounded.T)]


def test_a_rounded_position_comes_to_its_axis():
    three_fold = np.array([[[1, 0, 0], [0, 1, 0], [0, 0, 1]], [[0, 0, 1], [1, 0, 0], [0, 1, 0]],
                           [[0, 1, 0], [0, 0, 1], [1, 0, 0]]])  # fmt: skip
    sites = crystals.orbit(three_fold, np.zeros((3, 3)), np.array([0.3333, 0.3333, 0.3336]))
    np.testing.assert_allclose(sites, [[0.3334] * 3], atol=1e-12)


class TestRelatives:
    def test_new_alike_and_sensible(self, known):
        made = prototypes.relatives(np.random.default_rng(4), 80, max_lattice=9.0)
        taken = {(one.prototype, one.formula) for one in known}
        assert len({(one.prototype, one.formula) for one in made} - taken) == 80
        groups = {one.prototype: one.space_group for one in known}
        for one in made:
            assert one.lattice_parameter <= 9.0
            assert space_group(one) == groups[one.prototype] == one.space_group
            assert 0.65 < prototypes.closest_contact(one) < 1.3
        assert len({one.prototype for one in made}) > 30

    def test_the_generator_decides(self):
        one, same, other = (
            crystals.to_table(prototypes.relatives(np.random.default_rng(seed), 10)) for seed in (1, 1, 2)
        )
        assert one.identical(same)
        assert not one.identical(other)

    def test_more_than_there_are(self):
        with pytest.raises(InputError, match=r"relatives up to 2\.5 Å"):
            prototypes.relatives(np.random.default_rng(0), 50, max_lattice=2.5)


class TestRandomCrystals:
    def test_every_group_with_its_symmetry_and_room_for_the_atoms(self):
        made = random_cubic.random_crystals(np.random.default_rng(7), 36)
        assert [one.space_group for one in made] == list(range(195, 231))
        for one in made:
            assert 2.5 <= one.lattice_parameter <= 9.0
            assert prototypes.closest_contact(one) >= random_cubic.CLOSEST - 1e-9
            assert 1 <= len(set(one.numbers.tolist())) <= 3
            assert one.setting == ("2" if one.space_group in prototypes.ORIGIN_1 else "")
        higher = [one.space_group for one in made if space_group(one, 1e-3) != one.space_group]
        assert set(higher) <= {203, 209, 219, 226, 228}  # these may find no room

    def test_the_generator_decides(self):
        one, same, other = (
            crystals.to_table(
                random_cubic.random_crystals(np.random.default_rng(seed), 6, space_groups=[198, 221])
            )
            for seed in (1, 1, 2)
        )
        assert one.identical(same)
        assert not one.identical(other)

    def test_refused(self):
        rng = np.random.default_rng(0)
        with pytest.raises(InputError, match="space group 62"):
            random_cubic.random_crystals(rng, 1, space_groups=[62])
        with pytest.raises(InputError, match="0 < min < max"):
            random_cubic.random_crystals(rng, 1, min_lattice=9, max_lattice=8)
        with pytest.raises(InputError, match="no crystal of space group 221 found"):
            random_cubic.random_crystals(
                rng, 1, space_groups=[221], min_lattice=2, max_lattice=2.01, max_atoms=1
            )
