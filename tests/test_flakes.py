"""Nanoflakes: outlines, damage, disorder, tilt and graphene below."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exitwave.errors import InputError
from exitwave.specimens import flakes, layers
from exitwave.specimens.flakes import Flake

MOLYBDENUM, SULPHUR = 42, 16
SIZE = (25.6, 25.6)
seeds = st.integers(0, 2**32)
SOME = [
    layers.mos2(),
    layers.graphene(),
    layers.known_layer("CrI3", "CrI3"),
    layers.known_layer("WTe2", "1T'"),
    layers.known_layer("SnSe", "GeS"),
    layers.known_layer("Bi2Te3", "Bi2Se3"),
]
some_layers = st.sampled_from(SOME)


def distances(positions):
    return np.linalg.norm(positions[:, None] - positions, axis=-1)


def border(flake):
    """Distance, Å, of the outermost atom to the border of the box."""
    lateral = flake.positions[:, :2]
    return min(lateral.min(), (np.array(flake.size[::-1]) - lateral).min())


def flake(seed=0, layer=None, **more):
    return flakes.nanoflake(layer or layers.mos2(), np.random.default_rng(seed), **more)


def atoms(**changes):
    fields = {
        "name": "pair", "numbers": [42, 16], "positions": [[1, 2, 0], [3, 2, 1]], "column": [0, 1],
        "support": [False, False], "size": (4.0, 5.0),
    }  # fmt: skip
    return Flake(**(fields | changes))


class TestFlake:
    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"numbers": [], "positions": np.zeros((0, 3)), "column": [], "support": []}, "no atoms"),
            ({"numbers": [42, 0]}, "no element has the number 0"),
            ({"positions": [[1, 2, 0], [3, 2, np.nan]]}, "not all finite"),
            ({"column": [0]}, r"column have the shape \(1,\)"),
            ({"support": [False]}, r"support have the shape \(1,\)"),
            ({"size": (4.0, 0.0)}, "two positive lengths"),
            ({"size": (4.0, math.inf)}, "two positive lengths"),
            (
                {"positions": [[1, 2, 0], [3, 4.5, 1]]},
                r"y = 4\.50 Å, x = 3\.00 Å is outside the box of 4 x 5",
            ),
            ({"positions": [[-0.1, 2, 0], [3, 2, 1]]}, "outside the box"),
        ],
    )
    def test_refused(self, changes, says):
        with pytest.raises(InputError, match=says) as error:
            atoms(**changes)
        assert "\n" not in str(error.value)

    def test_the_size_is_y_then_x(self):
        assert atoms(positions=[[4.9, 2, 0], [3, 3.9, 1]]).size == (4.0, 5.0)


class TestNanoflake:
    @settings(max_examples=60, deadline=None)
    @given(some_layers, seeds)
    def test_it_stays_within_the_margin_even_when_tilted(self, layer, seed):
        generator = np.random.default_rng(seed)
        one = flakes.nanoflake(layer, generator)
        assert border(one) >= 3.0
        most = flakes.LARGEST_TILT
        for _ in range(5):
            assert border(flakes.tilted(one, generator, largest=most)) >= 3.0 - 1e-9

    @settings(max_examples=30, deadline=None)
    @given(some_layers, seeds)
    def test_it_is_a_piece_of_the_layer(self, layer, seed):
        one = flake(seed, layer)
        turn = np.array(
            [[math.cos(one.angle), math.sin(one.angle)], [-math.sin(one.angle), math.cos(one.angle)]]
        )
        fractions = (one.positions[:, :2] @ turn.T) @ np.linalg.inv(layer.cell)
        # Every atom is a lattice vector away from one of the cell, the same shift for all.
        motif = layer.positions[:, :2] @ np.linalg.inv(layer.cell)
        for site in range(layer.atoms):
            alike = (layer.numbers == layer.numbers[site]) & np.isclose(
                layer.positions[:, 2], layer.positions[site, 2]
            )
            if alike.sum() == 1:
                mine = (one.numbers == layer.numbers[site]) & np.isclose(
                    one.positions[:, 2], layer.positions[site, 2]
                )
                apart = fractions[mine] - motif[site]
                assert np.abs(apart - apart[:1] - np.rint(apart - apart[:1])).max(initial=0) < 1e-9
        contacts = distances(one.positions)[~np.eye(len(one.numbers), dtype=bool)]
        from ase.data import covalent_radii

        assert contacts.min() > layers.contact(layer) * 2 * covalent_radii[layer.numbers].min() - 1e-9

    def test_molybdenum_has_six_sulphur_neighbours(self):
        apart = []
        for seed in range(20):
            one = flake(seed, diameter=(17.0, 18.0))
            all_pairs = distances(one.positions)[one.numbers == MOLYBDENUM][:, one.numbers == SULPHUR]
            near = all_pairs < 2.9  # the second shell is at 3.97 Å
            assert near.sum(axis=1).max() == 6
            assert (near.sum(axis=1) == 6).mean() > 0.3
            apart.append(all_pairs[near])
        expected = math.sqrt(3.16**2 / 3 + 1.56**2)  # 2.40 Å; 2.41 Å in the bulk
        np.testing.assert_allclose(np.concatenate(apart), expected, rtol=1e-9)

    def test_the_area_is_that_of_the_drawn_diameter(self):
        # Only flakes that the margin does not cut: no atom is within a lattice constant of it.
        every = [flake(seed, size=(50.0, 50.0), diameter=(14.0, 14.0)) for seed in range(300)]
        counts = [len(one.numbers) for one in every if border(one) > 3.3 + 3.2]
        assert len(counts) > 100
        expected = 3 * math.pi * 7.0**2 / (3.16**2 * math.sqrt(3) / 2)
        error = np.std(counts) / math.sqrt(len(counts))
        assert np.mean(counts) == pytest.approx(expected, abs=4 * error)

    def test_outlines_are_convex_of_area_pi_and_of_many_shapes(self):
        polar = np.linspace(0, 2 * math.pi, 3600, endpoint=False)
        flattest = []
        for seed in range(100):
            radius = flakes._outline(np.random.default_rng(seed))(polar)
            assert np.mean(radius**2) == pytest.approx(1, rel=1e-3)  # the area over pi
            x, y = radius * np.cos(polar), radius * np.sin(polar)
            ahead, further = np.roll([x, y], -1, axis=1), np.roll([x, y], -2, axis=1)
            (ux, uy), (vx, vy) = ahead - [x, y], further - ahead
            assert (ux * vy - uy * vx).min() > -1e-9  # never turns right
            flattest.append(radius.min() / radius.max())
        assert min(flattest) < 0.5
        assert max(flattest) > 0.85

    def test_orientation_is_drawn_or_given(self):
        turns = [flake(seed).angle for seed in range(200)]
        assert np.histogram(turns, 4, (0, 2 * math.pi))[0].min() > 25  # 50 expected, 4 deviations of 6.1
        assert flake(1, angle=0.3).angle == 0.3
        lateral = flake(1, angle=0.3).positions[:, :2]
        steps = (lateral[:, None] - lateral).reshape(-1, 2)
        nearest = steps[np.isclose(np.linalg.norm(steps, axis=1), 3.16)]
        off = (np.arctan2(nearest[:, 1], nearest[:, 0]) - 0.3) / (math.pi / 3)
        np.testing.assert_allclose(off, np.rint(off), atol=1e-9)

    def test_columns_of_sulphur_are_pairs(self):
        one = flake(2)
        for column in np.unique(one.column):
            mine = one.column == column
            assert sorted(one.numbers[mine]) in ([MOLYBDENUM], [SULPHUR, SULPHUR])
            assert np.ptp(one.positions[mine, :2], axis=0).max() < flakes.SAME_COLUMN
        assert not one.support.any()

    def test_small_offsets_make_columns_of_their_own(self):
        # Tin and selenium of one column of the ideal lattice are 0.43 Å apart across the beam.
        one = flake(0, layers.known_layer("SnSe", "GeS"))
        assert np.bincount(one.column).max() == 1

    def test_seed_decides(self):
        one, same, other = (flake(seed) for seed in (5, 5, 6))
        np.testing.assert_array_equal(one.positions, same.positions)
        assert one.positions.shape != other.positions.shape or (one.positions != other.positions).any()

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"diameter": (10, 30)}, r"10 to 30 Å in a box of 25\.6 x 25\.6 Å .* larger <= 19\.06 Å"),
            ({"diameter": (12, 10)}, "12 to 10 Å"),
            ({"diameter": (0, 10)}, "0 to 10 Å"),
            ({"size": (10.0, 25.6)}, "larger <= 3.458 Å"),
            ({"margin": -1}, "margin of -1 Å"),
            ({"diameter": (0.01, 0.01)}, "no atom within a diameter of 0.01 Å"),
        ],
    )
    def test_refused(self, change, says):
        with pytest.raises(InputError, match=says) as error:
            flake(0, **change)
        assert "\n" not in str(error.value)


class TestDamaged:
    def test_nothing_to_all(self):
        one = flake(0)
        whole = flakes.damaged(one, np.random.default_rng(0), vacancies=0, holes=0)
        np.testing.assert_array_equal(whole.positions, one.positions)
        with pytest.raises(InputError, match="no atoms"):
            flakes.damaged(one, np.random.default_rng(0), vacancies=1)
        for name in ("vacancies", "holes"):
            with pytest.raises(InputError, match=f"{name} for a share of 1.5"):
                flakes.damaged(one, np.random.default_rng(0), **{name: 1.5})

    @settings(max_examples=40, deadline=None)
    @given(seeds, st.floats(0, 0.5))
    def test_vacancies_are_single_atoms(self, seed, share):
        generator = np.random.default_rng(seed)
        one = flake(seed)
        left = flakes.damaged(one, generator, vacancies=share, holes=0)
        assert len(one.numbers) - len(left.numbers) == round(share * len(one.numbers))
        # The atoms that stay are the same ones.
        assert {tuple(row) for row in left.positions} <= {tuple(row) for row in one.positions}

    def test_a_vacancy_of_sulphur_leaves_one(self):
        one = flake(0)
        left = flakes.damaged(one, np.random.default_rng(3), vacancies=0.1, holes=0)
        sulphur = Counter(left.column[left.numbers == SULPHUR].tolist())
        assert 1 in sulphur.values()

    @settings(max_examples=40, deadline=None)
    @given(seeds, st.floats(0, 0.5))
    def test_holes_are_whole_columns(self, seed, share):
        one = flake(seed)
        left = flakes.damaged(one, np.random.default_rng(seed), vacancies=0, holes=share)
        before, after = Counter(one.column.tolist()), Counter(left.column.tolist())
        assert all(after[column] in (0, atoms) for column, atoms in before.items())
        lost, chosen = len(before) - len(after), round(share * len(one.numbers))
        assert math.ceil(chosen / 2) <= lost <= chosen

    def test_shares(self):
        generator = np.random.default_rng(0)
        lost, expected, variance = 0, 0.0, 0.0
        for seed in range(200):
            one = flake(seed)
            n = len(one.numbers)
            lost += n - len(flakes.damaged(one, generator).numbers)
            # A hole takes 5/3 atoms on average; pairs halved before or chosen twice make it less by 10 %
            # at the most, twice the share of the atoms.
            expected += 0.05 * n + 0.05 * 0.95 * n * 5 / 3
            variance += 0.05 * n * (2 / 9 + 0.5)
        assert lost < expected + 4 * math.sqrt(variance)
        assert lost > 0.9 * expected - 4 * math.sqrt(variance)

    def test_flake_and_graphene_do_not_share_columns(self):
        both = flakes.on_graphene(flake(0), np.random.default_rng(0))
        left = flakes.damaged(both, np.random.default_rng(1), vacancies=0, holes=0.3)
        for part in (True, False):
            before = Counter(both.column[both.support == part].tolist())
            after = Counter(left.column[left.support == part].tolist())
            assert all(after[column] in (0, atoms) for column, atoms in before.items())
            assert len(after) < len(before)


class TestDisordered:
    def test_spread(self):
        one, generator = flake(0, diameter=(18.0, 18.0)), np.random.default_rng(0)
        moves = np.concatenate(
            [flakes.disordered(one, generator, spread=0.02).positions - one.positions for _ in range(50)]
        )
        n = len(moves)
        np.testing.assert_allclose(moves.std(axis=0), 0.02, rtol=4 / math.sqrt(2 * n))
        np.testing.assert_allclose(moves.mean(axis=0), 0, atol=4 * 0.02 / math.sqrt(n))
        correlation = np.corrcoef(moves.T)[np.triu_indices(3, 1)]
        assert np.abs(correlation).max() < 4 / math.sqrt(n)

    def test_refused(self):
        with pytest.raises(InputError, match="spread of -1 Å"):
            flakes.disordered(flake(0), np.random.default_rng(0), spread=-1)
        with pytest.raises(InputError, match="outside the box"):
            flakes.disordered(flake(0), np.random.default_rng(0), spread=100.0)


class TestTilted:
    @settings(max_examples=40, deadline=None)
    @given(some_layers, seeds)
    def test_it_is_rigid(self, layer, seed):
        one = flake(seed, layer)
        other = flakes.tilted(one, np.random.default_rng(seed))
        np.testing.assert_allclose(distances(other.positions), distances(one.positions), atol=1e-9)
        np.testing.assert_array_equal(other.column, one.column)

    def test_it_is_no_mirror_and_keeps_the_axis(self):
        one = flake(0)
        for seed in range(20):
            other = flakes.tilted(one, np.random.default_rng(seed))
            rotation, *_ = np.linalg.lstsq(
                one.positions - one.positions.mean(0), other.positions - other.positions.mean(0)
            )
            assert np.linalg.det(rotation) == pytest.approx(1)
            # About an axis across the beam: the part of the rotation about z is nothing.
            assert rotation[0, 1] == pytest.approx(rotation[1, 0], abs=1e-9)

    def test_angle_is_uniform_to_ten_degrees_in_every_direction(self):
        # A flat sheet of a few atoms tells its normal.
        one = atoms(
            numbers=[6] * 4, positions=[[9, 10, 0], [11, 10, 0], [10, 9, 0], [10, 11, 0]], column=range(4),
            support=[False] * 4, size=(20.0, 20.0),
        )  # fmt: skip
        normals = []
        for seed in range(400):
            p = flakes.tilted(one, np.random.default_rng(seed)).positions
            normals.append(np.cross(p[1] - p[0], p[3] - p[2]) / 4)
        normals = np.array(normals)
        angles = np.degrees(np.arccos(normals[:, 2]))
        assert angles.max() <= 10
        assert np.histogram(angles, 4, (0, 10))[0].min() > 65  # 100 expected, 4 standard deviations of 8.7
        directions = np.arctan2(normals[:, 1], normals[:, 0])
        assert np.histogram(directions, 4, (-math.pi, math.pi))[0].min() > 65

    def test_refused(self):
        with pytest.raises(InputError, match="tilts up to -1 rad"):
            flakes.tilted(flake(0), np.random.default_rng(0), largest=-1)


def carbon_angle(one):
    """Angle of the axis a of graphene, rad, modulo 60 degrees."""
    carbon = one.positions[one.support][:, :2]
    steps = (carbon[:, None] - carbon).reshape(-1, 2)
    steps = steps[np.isclose(np.linalg.norm(steps, axis=1), 2.46, atol=1e-6)]
    return np.angle(np.exp(6j * np.arctan2(steps[:, 1], steps[:, 0])).mean()) / 6


class TestOnGraphene:
    @settings(max_examples=40, deadline=None)
    @given(some_layers, seeds)
    def test_distance_and_side(self, layer, seed):
        generator = np.random.default_rng(seed)
        one = flake(seed, layer)
        both = flakes.on_graphene(one, generator)
        assert set(both.numbers[both.support]) == {6}
        np.testing.assert_array_equal(both.positions[~both.support], one.positions)
        sheet = both.positions[both.support, 2]
        assert np.ptp(sheet) < 1e-9
        assert 3.3 <= sheet[0] - one.positions[:, 2].max() <= 7.0
        assert set(both.column[both.support]).isdisjoint(both.column[~both.support])
        for _ in range(3):
            assert border(flakes.tilted(both, generator)) > 1.5 - 1e-9

    def test_rotations_a_quarter_each(self):
        found = Counter()
        for seed in range(240):
            one = flake(seed)
            both = flakes.on_graphene(one, np.random.default_rng(1000 + seed))
            apart = math.degrees(carbon_angle(both) - one.angle) % 60
            classes = [turn for turn in (0, 15, 30) if abs((apart - turn + 30) % 60 - 30) < 1e-3]
            found[classes[0] if classes else None] += 1
        # 60 expected of each, 6.7 the standard deviation.
        assert set(found) == {0, 15, 30, None}
        assert min(found.values()) > 60 - 4 * 6.7

    def test_it_mostly_covers_the_flake(self):
        shares = []
        for seed in range(100):
            both = flakes.on_graphene(flake(seed), np.random.default_rng(seed))
            above = both.positions[~both.support][:, None, :2] - both.positions[both.support][:, :2]
            # Inside a hexagon no point is farther than 1.42 Å from carbon.
            shares.append((np.linalg.norm(above, axis=-1).min(axis=1) <= 1.42).mean())
        assert np.median(shares) > 0.5
        assert min(shares) < max(shares) == 1  # mostly, not always

    def test_seed_decides(self):
        one, same, other = (flakes.on_graphene(flake(1), np.random.default_rng(seed)) for seed in (5, 5, 6))
        np.testing.assert_array_equal(one.positions, same.positions)
        assert one.positions[-1, 2] != other.positions[-1, 2]

    def test_refused(self):
        one, generator = flake(0), np.random.default_rng(0)
        with pytest.raises(InputError, match="support already"):
            flakes.on_graphene(flakes.on_graphene(one, generator), generator)
        with pytest.raises(InputError, match="distances"):
            flakes.on_graphene(one, generator, distance=(7.0, 3.3))
        with pytest.raises(InputError, match="no angles"):
            flakes.on_graphene(one, generator, angles=())
        with pytest.raises(InputError, match=r"margin of 13\.\d+ Å"):
            flakes.on_graphene(one, generator, margin=12.8)


class TestMeanSquareDisplacement:
    def test_sulphur_in_mos2(self):
        # 0.0030 Å^2 in the paper; both numbers to the digits given.
        assert flakes.mean_square_displacement(32.06, 580) == pytest.approx(0.0030, abs=5e-5)
        assert flakes.mean_square_displacement(32.06, 580, full=True) == pytest.approx(0.0045, abs=5e-5)

    @given(st.floats(1, 250), st.floats(50, 2000))
    def test_the_paper_has_half_at_both_ends(self, mass, theta):
        for temperature in (0.0, 100 * theta):
            eq1, debye = (
                flakes.mean_square_displacement(mass, theta, temperature, full=full) for full in (False, True)
            )
            # At T >> theta the Debye model is T/theta + theta/(36 T) where Eq. 1 has (T/theta + 1/4) / 2.
            assert debye == pytest.approx(2 * eq1, rel=3e-3)

    def test_low_temperatures(self):
        # D is pi^2/6 there: the integral from 0 to infinity.
        low = flakes.mean_square_displacement(32.06, 580, 0.58, full=True)
        zero = flakes.mean_square_displacement(32.06, 580, 0.0, full=True)
        assert low / zero - 1 == pytest.approx(4e-6 * math.pi**2 / 6, rel=1e-6)

    def test_refused(self):
        with pytest.raises(InputError, match="mass 0"):
            flakes.mean_square_displacement(0, 580)
        with pytest.raises(InputError, match="Debye temperature -1"):
            flakes.mean_square_displacement(32, -1)
        with pytest.raises(InputError, match="temperature -5 K"):
            flakes.mean_square_displacement(32, 580, -5)
