"""Structure types of every system, relatives of them, and crystals along a zone axis."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exitwave.errors import InputError
from exitwave.specimens.crystals import Crystal, site_distances
from exitwave.specimens.prototypes import closest_contact, load_prototypes
from exitwave.specimens.structures import crystal_of, known_structures, load_structures, relatives_of
from exitwave.specimens.zones import along

KNOWN = known_structures()
OTHERS = [crystal for crystal in KNOWN if crystal.prototype not in load_prototypes()]
ZONES = [zone for zone in itertools.product(range(3), repeat=3) if any(zone)]


def named(formula, family):
    return next(c for c in KNOWN if c.formula == formula and c.prototype == family)


def test_the_table_has_every_system_and_many_families():
    groups = {crystal.space_group for crystal in OTHERS}
    for system in (range(3, 16), range(16, 75), range(75, 143), range(143, 168), range(168, 195)):
        assert groups & set(system), system
    assert len({crystal.prototype for crystal in KNOWN}) >= 100


@pytest.mark.parametrize(
    ("formula", "family", "density"),
    [
        # g/cm³, CRC Handbook of Chemistry and Physics.
        ("TiO2", "rutile", 4.23), ("TiO2", "anatase", 3.9), ("TiO2", "brookite", 4.13),
        ("Al2O3", "corundum", 3.99),
        ("CaCO3", "calcite", 2.71), ("CaCO3", "aragonite", 2.93), ("SiO2", "quartz", 2.65),
        ("ZnO", "wurtzite", 5.6),
        ("MoS2", "MoS2", 5.06), ("ZrO2", "baddeleyite", 5.68), ("CuO", "tenorite", 6.31),
        ("Fe3C", "cementite", 7.69),
        ("ZrSiO4", "zircon", 4.6), ("CaWO4", "scheelite", 6.06), ("Mg2SiO4", "olivine", 3.21),
        ("C", "graphite", 2.2),
        ("LiNbO3", "LiNbO3", 4.64), ("Bi2Te3", "Bi2Te3", 7.74), ("WC", "WC", 15.6), ("Mg", "hcp", 1.74),
    ],
)  # fmt: skip
def test_densities_are_those_of_the_handbook(formula, family, density):
    from ase.data import atomic_masses

    crystal = named(formula, family)
    mass = (atomic_masses[crystal.numbers] * crystal.occupancies).sum()
    assert mass * 1.66054 / crystal.volume == pytest.approx(density, rel=0.05)


def test_atoms_are_as_far_apart_as_chemistry_has_them():
    for crystal in OTHERS:
        # Bonds of metals with oxygen are down to a quarter shorter than the covalent radii, most to d0 ions.
        assert 0.75 < closest_contact(crystal) < 1.3, (crystal.prototype, crystal.formula)
        assert 4 < crystal.volume / crystal.occupancies.sum() < 50, (crystal.prototype, crystal.formula)


@pytest.mark.parametrize(
    ("formula", "family", "pair", "distance"),
    [
        # Å, bond lengths known from elsewhere.
        ("C", "graphite", (6, 6), 1.42), ("CaCO3", "calcite", (6, 8), 1.28),
        ("SiO2", "quartz", (14, 8), 1.61),
        ("TiO2", "anatase", (22, 8), 1.934), ("MoS2", "MoS2", (42, 16), 2.41), ("CaC2", "CaC2", (6, 6), 1.19),
        ("Fe2P", "Fe2P", (26, 15), 2.22), ("CaWO4", "scheelite", (74, 8), 1.78),
        ("Se", "selenium", (34, 34), 2.37),
    ],
)  # fmt: skip
def test_bonds_are_as_long_as_they_are_known_to_be(formula, family, pair, distance):
    crystal = named(formula, family)
    apart = site_distances(crystal.positions, crystal.cell)
    one, two = (np.flatnonzero(crystal.numbers == number) for number in pair)
    assert apart[np.ix_(one, two)].min() == pytest.approx(distance, abs=0.03)


def test_the_stand_in_has_the_composition_of_the_paper():
    [crystal] = [c for c in KNOWN if c.prototype == "half-filled TlSe"]
    totals = {z: crystal.occupancies[crystal.numbers == z].sum() for z in (49, 19, 34, 50)}
    assert totals == pytest.approx({49: 1.7, 19: 2.0, 34: 8.0, 50: 2.28})


def test_relatives_are_new_and_no_denser_than_their_parents():
    families = ["rutile", "corundum", "spinel", "GdFeO3", "wurtzite"]
    made = relatives_of(np.random.default_rng(0), families, 40, largest=14.0)
    assert len({(c.prototype, c.formula) for c in made}) == 40
    assert {c.prototype for c in made} == set(families)
    known = {(c.prototype, c.formula) for c in KNOWN}
    parents = {(c.prototype, c.formula): c for c in KNOWN}
    for crystal in made:
        assert (crystal.prototype, crystal.formula) not in known
        parent = parents[crystal.prototype, crystal.source.removeprefix("relative of ")]
        assert closest_contact(crystal) > 0.95 * closest_contact(parent)
        # It grows as a whole: shape as before but for the jitter of c/a.
        shapes = [np.linalg.norm(c.cell, axis=1) / c.volume ** (1 / 3) for c in (crystal, parent)]
        assert np.allclose(*shapes, rtol=0.02)
    again = relatives_of(np.random.default_rng(0), families, 40, largest=14.0)
    assert [c.formula for c in again] == [c.formula for c in made]


def test_what_relatives_there_are_not_is_said():
    with pytest.raises(InputError, match="unknown structure type 'rutil'"):
        relatives_of(np.random.default_rng(0), ["rutil"], 1)
    with pytest.raises(InputError, match="500 relatives asked for, but only"):
        relatives_of(np.random.default_rng(0), ["graphite"], 500)


@given(st.integers(0, len(KNOWN) - 1), st.sampled_from(ZONES))
@settings(max_examples=25, deadline=None)
def test_a_slab_is_the_crystal_turned(index, zone):
    crystal = KNOWN[index]
    slab = along(crystal, zone)
    # As dense as the crystal, and every atom as far from its neighbours as there.
    assert slab.area * slab.period == pytest.approx(
        crystal.volume * len(slab.numbers) / len(crystal.numbers), rel=1e-6
    )
    assert slab.cell[0, 1] == pytest.approx(0, abs=1e-9)
    assert np.linalg.det(slab.cell) > 0
    assert slab.slope < 0.3
    if slab.slope == 0 and len(slab.numbers) < 150:
        cell = np.zeros((3, 3))
        cell[:2, :2], cell[2, 2] = slab.cell, slab.period
        turned = Crystal(
            "turned", cell, slab.numbers, slab.fractions, slab.occupancies, np.zeros(len(slab.numbers))
        )
        assert closest_contact(turned) == pytest.approx(closest_contact(crystal), rel=1e-3)


def test_the_zone_axis_points_down_the_beam_and_the_slab_is_not_mirrored():
    # A chiral arrangement: along c, atoms 1, 2, 3 turn from +x to +y as they go down the beam.
    positions = [[0.2, 0, 0], [0, 0.2, 1 / 3], [-0.2, 0, 2 / 3]]
    crystal = Crystal("helix", 5 * np.eye(3), [6, 7, 8], positions, np.ones(3), np.zeros(3))
    for zone, hand in (([0, 0, 1], 1), ([0, 0, -1], -1)):
        slab = along(crystal, zone)
        x, y = (slab.fractions[:, :2] @ slab.cell).T
        order = np.argsort(slab.fractions[:, 2] if hand > 0 else -slab.fractions[:, 2])
        assert [6, 7, 8][order[0]] in (6, 7, 8)
        first, second = (
            np.array([v - 5 * np.rint(v / 5) for v in (x[slab.numbers == n][0], y[slab.numbers == n][0])])
            for n in (6, 7)
        )
        turn = first[0] * second[1] - first[1] * second[0]
        depth = [slab.fractions[slab.numbers == n][0, 2] for n in (6, 7)]
        down = (depth[1] - depth[0]) % 1
        # A quarter turn to the right hand in a third of the period, whichever way it is seen.
        assert np.sign(turn) * (1 if down < 0.5 else -1) == 1


@pytest.mark.parametrize("zone", [[0, 0, 0], [1, 1], [1, 0.5, 0], "abc", [1, None, 0]])
def test_what_is_no_zone_is_refused(zone):
    with pytest.raises(InputError, match=r"zone axis .* give three integers"):
        along(KNOWN[0], zone)


def test_a_zone_is_reduced():
    assert along(KNOWN[0], [2, 2, 0]).period == pytest.approx(along(KNOWN[0], [1, 1, 0]).period)


def test_axes_and_angles_are_those_of_the_table():
    prototype = load_structures()["baddeleyite"]
    lengths = np.linalg.norm(crystal_of(prototype, prototype.compounds[0]).cell, axis=1)
    assert lengths == pytest.approx([5.1505, 5.2116, 5.3173])
