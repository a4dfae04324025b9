"""Two-dimensional materials: the table, relatives, the division by elements."""

from collections import Counter

import numpy as np
import pytest
import spglib
from hypothesis import given, settings
from hypothesis import strategies as st

from exitwave.errors import InputError
from exitwave.specimens import layers, prototypes
from exitwave.specimens.layers import Layer

# spglib tells at each call how it will raise errors some day.
pytestmark = pytest.mark.filterwarnings("ignore:Set OLD_ERROR_HANDLING:DeprecationWarning")

# Of a layer repeated along z. Where the layer is that of a known crystal, the symmetry of the free layer.
SPACE_GROUPS = {
    "graphene": 191, "boron nitride": 187, "silicene": 164, "buckled binary": 156, "1H": 187, "1T": 164,
    "1T'": 11, "Janus 1H": 156, "Janus 1T": 156, "black phosphorus": 53, "GeS": 31, "PbO": 129, "FeSe": 129,
    "HgI2": 115, "AgCuTe2": 6, "GaSe": 187, "CoCl": 164, "graphane": 164, "MXene": 164, "Bi2Se3": 164,
    "tetradymite": 164, "CrI3": 162, "FeOCl": 59, "PbFCl": 129, "ZrNCl": 164,
}  # fmt: skip


@pytest.fixture(scope="module")
def known():
    return layers.known_layers()


def layer(**changes):
    fields = {
        "name": "BN", "prototype": "boron nitride", "cell": [[2.5, 0], [-1.25, 2.165]], "numbers": [5, 7],
        "positions": [[0, 1.443, 0], [1.25, 0.722, 0]],
    }  # fmt: skip
    return Layer(**(fields | changes))


def bonds(one, a, b):
    """Distances from the first atom of the element a to the atoms of b, shortest first, Å."""
    start = one.positions[np.flatnonzero(one.numbers == a)[0]]
    steps = np.stack(np.meshgrid(*2 * (np.arange(-4, 5),), indexing="ij"), -1).reshape(-1, 2)
    shifts = np.column_stack([steps @ one.cell, np.zeros(len(steps))])
    images = one.positions[one.numbers == b][:, None] + shifts
    distances = np.sort(np.linalg.norm(images - start, axis=-1).ravel())
    return distances[distances > 1e-6]


class TestLayer:
    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"numbers": [], "positions": np.zeros((0, 3))}, "no atoms"),
            ({"numbers": [5, 104]}, "no element has the number 104"),
            ({"numbers": ["B", "N"]}, "numbers are not numbers"),
            ({"positions": [[0, 0, 0]]}, r"\(2, 3\) is needed"),
            ({"positions": [[0, 0, 0], [0, 1.4, np.inf]]}, "positions are not all finite"),
            ({"cell": np.eye(3)}, r"\(2, 2\) is needed"),
            ({"cell": [[2.5, 0], [5.0, 0]]}, "no area"),
        ],
    )
    def test_refused(self, changes, says):
        with pytest.raises(InputError, match=says) as error:
            layer(**changes)
        assert "\n" not in str(error.value)

    def test_its_middle_comes_to_0_and_its_arrays_are_its_own(self):
        mine = np.array([[0, 1.4, 3.0], [1.2, 0.7, 5.0]])
        one = layer(positions=mine)
        assert one.positions[:, 2].tolist() == [-1.0, 1.0]
        assert mine[0, 2] == 3.0
        with pytest.raises(ValueError, match="read-only"):
            one.positions[0, 0] = 1.0
        assert one.elements == {5, 7}
        assert one.atoms == 2


class TestKnownLayers:
    def test_each_material_once_and_small(self, known):
        kinds = Counter((one.prototype, frozenset(Counter(one.numbers.tolist()).items())) for one in known)
        assert set(kinds.values()) == {1}
        assert len({(one.prototype, one.name) for one in known}) == len(known) >= 200
        assert max(one.atoms for one in known) == layers.MOST_ATOMS == 8

    def test_spglib_finds_the_symmetry_of_each_type(self, known):
        found = {}
        for one in known:
            box = np.diag([0, 0, 40.0])
            box[:2, :2] = one.cell
            cell = (box, one.positions @ np.linalg.inv(box), one.numbers)
            found.setdefault(one.prototype, set()).add(spglib.get_symmetry_dataset(cell, symprec=1e-3).number)
        assert found == {name: {number} for name, number in SPACE_GROUPS.items()}

    def test_atoms_keep_a_chemical_distance(self, known):
        # The bounds of tests/test_crystals.py.
        contacts = [layers.contact(one) for one in known]
        assert min(contacts) > 0.7
        assert max(contacts) < 1.35

    @pytest.mark.parametrize(
        ("name", "prototype", "pair", "expected"),  # bonds in Å, rounded, of the bulk crystals
        [
            ("C", "graphene", (6, 6), [1.42] * 3),
            ("BN", "boron nitride", (5, 7), [1.446] * 3),
            ("MoS2", "1H", (42, 16), [2.41] * 6),
            ("WSe2", "1H", (74, 34), [2.53] * 6),
            ("TiS2", "1T", (22, 16), [2.43] * 6),
            ("WTe2", "1T'", (74, 74), [2.85] * 2),
            ("P", "black phosphorus", (15, 15), [2.224] * 2 + [2.244]),
            ("SnS", "GeS", (50, 16), [2.63] + [2.66] * 2),
            ("PbO", "PbO", (8, 82), [2.32] * 4),
            ("FeSe", "FeSe", (26, 34), [2.39] * 4),
            ("GaSe", "GaSe", (31, 34), [2.46] * 3),
            ("GaSe", "GaSe", (31, 31), [2.44]),
            ("BiTeI", "Janus 1T", (83, 53), [3.27] * 3),
            ("CrI3", "CrI3", (24, 53), [2.73] * 6),
            ("Bi2Te3", "Bi2Se3", (83, 52), [3.07] * 3 + [3.25] * 3),
            ("BiOCl", "PbFCl", (83, 8), [2.32] * 4),
            ("FeOCl", "FeOCl", (26, 8), [1.96] * 2 + [2.10] * 2),
            ("ZrCl", "CoCl", (40, 40), [3.09] * 3),
            ("CF", "graphane", (6, 9), [1.37]),
        ],
    )
    def test_bonds(self, known, name, prototype, pair, expected):
        one = layers.known_layer(name, prototype)
        # 2 %: the table is rounded and mixes bulk and free layers.
        np.testing.assert_allclose(bonds(one, *pair)[: len(expected)], expected, rtol=0.02)

    def test_the_two_of_the_paper(self):
        mos2, graphene = layers.mos2(), layers.graphene()
        assert np.linalg.norm(mos2.cell, axis=1) == pytest.approx([3.16, 3.16])
        assert mos2.positions[mos2.numbers == 16, 2].tolist() == pytest.approx([1.56, -1.56])
        assert mos2.positions[mos2.numbers == 42, 2] == pytest.approx(0)
        assert np.linalg.norm(graphene.cell, axis=1) == pytest.approx([2.46, 2.46])

    def test_cobalt_chloride_is_staggered_as_the_paper_describes_it(self):
        # Sec. 3: a Co and a Cl atom at each position, "alternately oriented with the Co or Cl on top".
        one = layers.known_layer("CoCl", "CoCl")
        columns = {}
        for z, place in zip(one.numbers, one.positions, strict=True):
            columns.setdefault(tuple(np.round(place[:2], 6)), []).append((place[2], int(z)))
        tops = [max(column)[1] for column in columns.values()]
        assert all({z for _, z in column} == {27, 17} for column in columns.values())
        assert sorted(tops) == [17, 27]

    def test_silver_copper_telluride_breaks_its_symmetry_a_little(self):
        one = layers.known_layer("AgCuTe2", "AgCuTe2")
        (copper,) = one.positions[one.numbers == 29, :2] @ np.linalg.inv(one.cell)
        offset = (copper - 0.5) @ one.cell
        assert 0.05 < np.linalg.norm(offset) < 0.3  # Å

    def test_unknown(self):
        with pytest.raises(InputError, match="no 'MoS2' of the type '2H'"):
            layers.known_layer("MoS2", "2H")


class TestRelatives:
    def test_new_alike_and_sensible(self, known):
        from ase.data import covalent_radii

        made = layers.relatives(np.random.default_rng(4), 300)
        kinds = {(one.prototype, frozenset(Counter(one.numbers.tolist()).items())) for one in known + made}
        assert len(kinds) == len(known) + 300
        for one in made:
            assert layers.contact(one) >= layers.CLOSEST
            # Some known layer has alike elements on the same sites, all lengths in proportion to the radii.
            scales = {
                i: covalent_radii[one.numbers].sum() / covalent_radii[parent.numbers].sum()
                for i, parent in enumerate(known)
                if (parent.prototype, pattern(parent)) == (one.prototype, pattern(one))
            }
            assert any(
                np.allclose(one.cell, scale * known[i].cell, rtol=1e-12)
                and np.allclose(one.positions, scale * known[i].positions, rtol=1e-12)
                for i, scale in scales.items()
            )

    def test_at_least_four_hundred_materials(self, known):
        assert len(known) + len(layers.relatives(np.random.default_rng(1), 500)) >= 400

    def test_the_generator_decides(self):
        one, same, other = (
            [(made.prototype, made.name) for made in layers.relatives(np.random.default_rng(seed), 60)]
            for seed in (1, 1, 2)
        )
        assert one == same != other
        assert len({prototype for prototype, _ in one}) > 15

    @pytest.mark.parametrize("count", [-1, 10_000])
    def test_no_such_number(self, count):
        with pytest.raises(InputError, match=f"{count} relatives asked for"):
            layers.relatives(np.random.default_rng(0), count)


def pattern(one):
    """The families of alike elements that the atoms belong to, in order."""
    from ase.data import chemical_symbols

    lists = prototypes.families()
    symbols = [chemical_symbols[z] for z in one.numbers]
    return [next((i for i, family in enumerate(lists) if symbol in family), symbol) for symbol in symbols]


elements = st.lists(st.integers(1, 12), min_size=1, max_size=3)


class TestSplit:
    @settings(max_examples=100, deadline=None)
    @given(st.lists(elements, min_size=2, max_size=60), st.floats(0.05, 0.95), st.integers(0, 2**32))
    def test_no_set_of_elements_is_on_both_sides(self, contents, share, seed):
        every = [layer(numbers=z, positions=np.eye(3)[: len(z)], name=str(z)) for z in contents]
        groups = Counter(one.elements for one in every)
        if len(groups) < 2:
            with pytest.raises(InputError, match="at least two sets"):
                layers.split_by_elements(every, share, np.random.default_rng(seed))
            return
        first, second = layers.split_by_elements(every, share, np.random.default_rng(seed))
        assert sorted(first + second) == list(range(len(every)))
        assert {every[i].elements for i in first}.isdisjoint(every[i].elements for i in second)
        assert first
        assert second
        assert abs(len(first) - share * len(every)) <= max(groups.values()) + 1e-9

    def test_two_to_one(self, known):
        every = known + layers.relatives(np.random.default_rng(0), 400)
        first, second = layers.split_by_elements(every, 2 / 3, np.random.default_rng(3))
        assert len(first) == pytest.approx(2 / 3 * len(every), abs=10)
        assert layers.split_by_elements(every, 2 / 3, np.random.default_rng(3)) == (first, second)
        assert layers.split_by_elements(every, 2 / 3, np.random.default_rng(4)) != (first, second)

    def test_every_material_comes_to_either_side(self, known):
        sides = [layers.split_by_elements(known, 0.5, np.random.default_rng(seed))[0] for seed in range(40)]
        times = np.bincount(np.concatenate(sides), minlength=len(known))
        assert 0 < times.min() < times.max() < 40

    @pytest.mark.parametrize("share", [0, 1, -0.1, float("nan")])
    def test_no_share(self, known, share):
        with pytest.raises(InputError, match="between 0 and 1"):
            layers.split_by_elements(known, share, np.random.default_rng(0))
