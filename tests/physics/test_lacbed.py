"""LACBED by Bloch waves: closed forms, conservation, symmetry, gradients and the two solvers."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.integrate
import torch
from ase.build import bulk
from ase.spacegroup import crystal as build
from hypothesis import given, settings
from hypothesis import strategies as st

from exitwave import optics, records
from exitwave.errors import InputError
from exitwave.optics.scattering import scattering_factor
from exitwave.simulate.lacbed import (
    Absorption,
    Beams,
    Geometry,
    disks,
    potential_coefficients,
    propagation,
    record,
    select_beams,
    simulate,
    structure_factors,
    symmetry,
)
from exitwave.simulate.lacbed import setup as setting_up
from exitwave.simulate.lacbed.felix import felix_amplitudes
from exitwave.simulate.lacbed.potential import absorptive_factor, relativistic_factor
from exitwave.specimens.crystals import Crystal

ENERGY = 200e3
# A few hundred tilts would hide nothing that these do not show; none stands on a line of symmetry.
TILTS = torch.tensor([[0.0, 0.0], [0.2, 0.11], [0.53, -0.31], [1.2, 0.87]], dtype=torch.float64)
DEPTHS = torch.tensor([100.0, 500.0, 1000.0, 2000.0], dtype=torch.float64)
NONE, EINSTEIN, TENTH = Absorption(), Absorption("einstein"), Absorption("proportional", 0.1)


def cubic(symbols, sites, group, a, b):
    return Crystal.from_atoms(build(symbols, sites, spacegroup=group, cellpar=[a] * 3 + [90] * 3), b)


STRONTIUM_TITANATE = cubic(["Sr", "Ti", "O"], [(0, 0, 0), (0.5,) * 3, (0.5, 0.5, 0)], 221, 3.905, 0.5)
PYRITE = cubic(["Fe", "S"], [(0, 0, 0), (0.385,) * 3], 205, 5.418, 0.4)
GALLIUM_ARSENIDE = Crystal.from_atoms(bulk("GaAs", "zincblende", a=5.65325, cubic=True), 0.5)
ALONG_110 = Geometry(zone=(1, 1, 0), pixels=9, half_angle=0.02, x_direction=(0, 0, 1))
# No symmetry at all.
ODD = replace(
    GALLIUM_ARSENIDE,
    positions=GALLIUM_ARSENIDE.positions + np.random.default_rng(0).uniform(-0.1, 0.1, (8, 3)),
)


pytestmark = pytest.mark.usefixtures("one_thread")


def prepared(crystal, geometry, beams, absorption=NONE, **more):
    return setting_up.prepare(crystal, geometry, beams, absorption, "kirkland", **more)


def both(setup, rows, *, real=torch.float64, **more):
    """Amplitudes by Chebyshev in a precision, and by diagonalisation in float64."""
    problem = setup.problem(TILTS, 1 / optics.wavelength(ENERGY))
    exact = propagation.diagonalise(problem, DEPTHS, rows)
    return propagation.chebyshev(problem.to("cpu", real), DEPTHS, rows, **more), exact


class TestClosedForms:
    @settings(deadline=None)  # SciPy is imported in the first
    @given(
        error=st.floats(-0.02, 0.02), size=st.floats(1e-4, 1e-2), phase=st.floats(0, 2 * math.pi),
        stretch=st.floats(1, 1.1), depth=st.floats(1, 3000),
    )  # fmt: skip
    @pytest.mark.parametrize("solver", [propagation.chebyshev, propagation.diagonalise])
    def test_two_beams(self, solver, error, size, phase, stretch, depth):
        # Pendellösung with w = s / (|U| / K), e.g. Hirsch et al., Electron Microscopy of Thin Crystals.
        u = 0.5 * size * complex(math.cos(phase), math.sin(phase))
        problem = propagation.Problem(
            torch.tensor([[0, u.conjugate()], [u, 0]], dtype=torch.complex128),
            torch.tensor([[0.0], [error]], dtype=torch.float64),
            torch.tensor([stretch], dtype=torch.float64),
            True,
        )
        found = solver(problem, torch.tensor([depth], dtype=torch.float64), torch.arange(2))
        effective = math.hypot(error, size)
        diffracted = (size / effective * math.sin(math.pi * stretch * depth * effective)) ** 2
        # The phase is known to some 1e-13 of itself, the series to 1e-6.
        expected = torch.tensor([1 - diffracted, diffracted], dtype=torch.float64)
        torch.testing.assert_close((found.abs() ** 2).flatten(), expected, atol=1e-5, rtol=0)

    @pytest.mark.parametrize(
        ("element", "a", "hkl", "length"),
        [("Si", 5.431, (1, 1, 1), 602), ("Si", 5.431, (2, 2, 0), 757), ("Ge", 5.658, (1, 1, 1), 430),
         ("Ge", 5.658, (2, 2, 0), 452)],
    )  # fmt: skip
    def test_extinction_distances(self, element, a, hkl, length):
        # At 100 kV, in Å, Hirsch et al., Electron Microscopy of Thin Crystals, appendix 3. Tables of that
        # time differ by up to 15% by their scattering factors; γ alone is 20%.
        crystal = Crystal.from_atoms(bulk(element, "diamond", a=a, cubic=True))
        found = potential_coefficients(crystal, np.array([hkl]), 100e3).abs()
        assert 1 / (optics.wavelength(100e3) * float(found[0])) == pytest.approx(length, rel=0.15)

    def test_weak_potential_scatters_once(self):
        # I_g = (π U t / K)² sinc²(π s t), with the path through the tilted crystal.
        geometry, depth = ALONG_110, 150.0

        def weak(hkl):
            return 1e-3 * potential_coefficients(GALLIUM_ARSENIDE, hkl, ENERGY)

        setup = prepared(GALLIUM_ARSENIDE, geometry, Beams(limit=1.2), coefficients=weak)
        problem = setup.problem(TILTS, geometry.wavenumber)
        rows = torch.arange(1, len(setup.hkl))
        amplitudes = propagation.chebyshev(problem, torch.tensor([depth]), rows, tolerance=1e-12)
        path = depth * problem.stretch
        once = (math.pi * path / geometry.wavenumber * weak(setup.hkl[1:]).abs()[:, None]) ** 2 * torch.sinc(
            problem.diagonal[1:] * path
        ) ** 2
        # What is scattered twice is 1e-3 of it in amplitude.
        torch.testing.assert_close(amplitudes[:, 0].abs() ** 2, once, rtol=0, atol=5e-3 * float(once.max()))

    def test_mean_absorption_alone(self):
        # One beam, so Beer's law: the cross-section of thermal diffuse scattering over the volume.
        crystal, geometry = GALLIUM_ARSENIDE, Geometry(pixels=1)
        wavenumber, gamma = geometry.wavenumber, relativistic_factor(ENERGY)
        lost = 0.0
        for number in crystal.numbers:

            def once(q, number=int(number)):
                f = float(scattering_factor(number, torch.tensor(q**2, dtype=torch.float64)))
                return 2 * math.pi * q * f**2 * (1 - math.exp(-0.5 * 0.5 * q**2))

            # f² q falls as q^-3: what lies beyond 1000 1/Å is some 1e-7 of it.
            pieces = [
                scipy.integrate.quad(once, *ends, limit=200)[0] for ends in ((0, 1), (1, 10), (10, 1000))
            ]
            lost += (gamma / wavenumber) ** 2 * sum(pieces)
        for solver in ("chebyshev", "diagonalise"):
            found = simulate(crystal, [400.0, 1500.0], geometry, Beams(limit=0.1), absorption=EINSTEIN,
                             solver=solver, dtype=torch.float64, verify=False)  # fmt: skip
            assert found.beams == 1
            expected = np.exp(-lost / crystal.volume * np.array([400.0, 1500.0]))
            np.testing.assert_allclose(found.intensity.flatten(), expected, rtol=1e-5)

    def test_thermal_absorption_vanishes_with_vibration(self):
        squared = torch.tensor([0.0, 0.3, 1.0, 4.0], dtype=torch.float64)
        found = [absorptive_factor(31, b, squared, ENERGY) for b in (0.6, 0.06, 0.006, 0.0)]
        assert (found[-1] == 0).all()
        assert all((one > two).all() for one, two in itertools.pairwise(found))
        assert found[2][0] < 0.05 * found[0][0]


CASES = {
    "real symmetric": (STRONTIUM_TITANATE, Geometry(), Beams(limit=1.8), Absorption()),
    "complex Hermitian": (GALLIUM_ARSENIDE, ALONG_110, Beams(limit=1.6), Absorption()),
    "higher zones": (GALLIUM_ARSENIDE, Geometry(zone=(1, 1, 1)), Beams(limit=1.3, layers=1), Absorption()),
    "a tenth absorbed": (STRONTIUM_TITANATE, Geometry(), Beams(limit=1.4), TENTH),
    "half absorbed": (GALLIUM_ARSENIDE, ALONG_110, Beams(limit=1.2), Absorption("proportional", 0.5)),
    "Einstein": (GALLIUM_ARSENIDE, ALONG_110, Beams(limit=1.4), EINSTEIN),
    "FELIX's absorption": (GALLIUM_ARSENIDE, ALONG_110, Beams(limit=1.4), Absorption("einstein", mean=False)),
}


@pytest.fixture(scope="module", params=CASES, ids=CASES.keys())
def case(request):
    return request.param, prepared(*CASES[request.param])


class TestSolvers:
    @pytest.mark.parametrize("wanted", ["all", "first"])
    def test_double_precision(self, case, wanted):
        name, setup = case
        rows = torch.arange(len(setup.hkl) if wanted == "all" else 1)
        found, exact = both(setup, rows, tolerance=1e-8)
        assert float((found - exact).abs().max()) < 1e-6
        assert setup.coupling.is_complex() is (name != "real symmetric")

    @pytest.mark.parametrize("wanted", ["all", "first"])
    def test_single_precision(self, case, wanted):
        rows = torch.arange(len(case[1].hkl) if wanted == "all" else 1)
        found, exact = both(case[1], rows, real=torch.float32)
        # A thousand terms, each rounded to 6e-8, with random signs; the program promises 1e-3.
        assert float((found.abs() ** 2 - exact.abs() ** 2).abs().max()) < 2e-5

    def test_order_and_repetition_of_depths(self, case):
        problem = case[1].problem(TILTS, 1 / optics.wavelength(ENERGY))
        depths = torch.tensor([900.0, 300.0, 900.0], dtype=torch.float64)
        found = propagation.chebyshev(problem, depths, torch.arange(3)).abs() ** 2
        alone = propagation.chebyshev(problem, depths[1:2], torch.arange(3)).abs() ** 2
        torch.testing.assert_close(found[:, 0], found[:, 2], atol=1e-12, rtol=0)
        torch.testing.assert_close(found[:, 1:2], alone, atol=2e-5, rtol=0)
        assert float((found[:, 0] - found[:, 1]).abs().max()) > 0.01

    def test_more_tilts_than_fit_a_block(self, monkeypatch):
        setup = prepared(*CASES["complex Hermitian"])
        tilts = torch.rand((70, 2), generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 0.5
        problem = setup.problem(tilts, 1 / optics.wavelength(ENERGY))
        whole = propagation.chebyshev(problem, DEPTHS[:2], torch.arange(4), tolerance=1e-10)
        monkeypatch.setitem(propagation._BLOCK, "cpu", 17 * len(setup.hkl))
        calls = []
        parts = propagation.chebyshev(
            problem, DEPTHS[:2], torch.arange(4), tolerance=1e-10, report=lambda *done: calls.append(done)
        )
        torch.testing.assert_close(parts, whole, atol=1e-8, rtol=0)
        assert calls == [(17, 70), (34, 70), (51, 70), (68, 70), (70, 70)]


class TestConservation:
    @pytest.mark.parametrize(
        ("crystal", "geometry", "beams"),
        [(STRONTIUM_TITANATE, Geometry(pixels=5), Beams(limit=1.8)),
         (GALLIUM_ARSENIDE, replace(ALONG_110, pixels=5), Beams(limit=1.6)),
         (GALLIUM_ARSENIDE, Geometry(zone=(1, 1, 1), pixels=3), Beams(limit=1.3, layers=1))],
        ids=["SrTiO3", "GaAs", "higher zones"],
    )  # fmt: skip
    def test_nothing_is_lost_without_absorption(self, crystal, geometry, beams):
        every = [tuple(hkl) for hkl in prepared(crystal, geometry, beams).hkl.tolist()]
        found = simulate(crystal, [200.0, 1000.0], geometry, beams, disks=every, verify=False)
        assert found.solver == "chebyshev"
        assert found.intensity.dtype == torch.float32
        assert float((found.intensity.sum(0) - 1).abs().max()) < 1e-5

    @pytest.mark.parametrize("absorption", [EINSTEIN, TENTH], ids=["Einstein", "proportional"])
    def test_absorption_takes_from_the_sum(self, absorption):
        geometry, beams = replace(ALONG_110, pixels=3), Beams(limit=1.4)
        every = [tuple(hkl) for hkl in prepared(GALLIUM_ARSENIDE, geometry, beams).hkl.tolist()]
        found = simulate(GALLIUM_ARSENIDE, [50.0, 200.0, 800.0], geometry, beams, disks=every,
                         absorption=absorption, verify=False)  # fmt: skip
        left = found.intensity.sum(0)
        assert (left < 1).all()
        assert (left > 0).all()
        assert (left.diff(dim=0) < 0).all()


class TestInvariance:
    @settings(max_examples=10)
    @given(shift=st.tuples(*[st.floats(-1, 1)] * 3))
    def test_origin(self, shift):
        def patterns(crystal):
            return simulate(crystal, [300.0, 900.0], replace(ALONG_110, pixels=3), Beams(limit=1.0),
                            disks=[(0, 0, 0), (1, -1, 1), (0, 0, 2)], solver="diagonalise",
                            dtype=torch.float64, verify=False).intensity  # fmt: skip

        torch.testing.assert_close(
            patterns(GALLIUM_ARSENIDE.shifted(shift)), patterns(GALLIUM_ARSENIDE), atol=1e-9, rtol=0
        )

    @settings(max_examples=10)
    @given(shift=st.tuples(*[st.floats(-1, 1)] * 3))
    def test_origin_does_not_hide_a_twofold_axis(self, shift):
        # [001] of every cubic crystal here: real matrices and the same wedge of tilts wherever the origin.
        for crystal, unique in ((STRONTIUM_TITANATE, 36), (GALLIUM_ARSENIDE, 36), (PYRITE, 64)):
            geometry = Geometry(pixels=16)
            setup = prepared(crystal.shifted(shift), geometry, Beams(limit=1.0))
            assert not setup.coupling.is_complex()
            assert len(disks._unique_tilts(setup, geometry, [(0, 0, 0)], Beams())[0]) == unique

    def test_sampling(self):
        # A third of the step: every third pixel, and the middle, stands where one stood before.
        coarse, fine = (
            simulate(STRONTIUM_TITANATE, [800.0], Geometry(pixels=n), Beams(limit=1.5), dtype=torch.float64,
                     disks=[(0, 0, 0), (1, 0, 0)], verify=False).intensity
            for n in (5, 15)
        )  # fmt: skip
        # Amplitudes are good to some 1e-6 each.
        torch.testing.assert_close(fine[..., 1::3, 1::3], coarse, atol=2e-5, rtol=0)
        assert float(coarse.std()) > 0.01

    def test_size_of_the_field(self):
        whole, half = (
            simulate(PYRITE, [500.0], Geometry(pixels=n, half_angle=angle), Beams(limit=1.2), verify=False,
                     dtype=torch.float64).intensity
            for n, angle in ((16, 0.03), (8, 0.015))
        )  # fmt: skip
        # Equally spaced angles: the inner half is the same pixels.
        torch.testing.assert_close(whole[..., 4:12, 4:12], half, atol=2e-5, rtol=0)

    def test_equivalent_zones(self):
        def pattern(zone, x):
            geometry = Geometry(pixels=8, zone=zone, x_direction=x)
            return simulate(PYRITE, [700.0], geometry, Beams(limit=1.3), verify=False).intensity

        reference = pattern((0, 0, 1), (1, 0, 0))
        # a, b, c in turn is an operation of Pa-3, exchanging two of them is not.
        torch.testing.assert_close(pattern((1, 0, 0), (0, 1, 0)), reference, atol=2e-5, rtol=0)
        torch.testing.assert_close(pattern((0, 1, 0), (0, 0, 1)), reference, atol=2e-5, rtol=0)
        assert float((pattern((1, 0, 0), (0, 0, 1)) - reference).abs().max()) > 0.01

    def test_multiple_of_a_zone_and_opposite_zone(self):
        def pattern(zone, x=(0, 0, 1)):
            geometry = replace(ALONG_110, zone=zone, x_direction=x)
            return simulate(GALLIUM_ARSENIDE, [500.0], geometry, Beams(limit=1.2), verify=False).intensity

        reference = pattern((1, 1, 0))
        torch.testing.assert_close(pattern((3, 3, 0)), reference, atol=1e-6, rtol=0)
        # Reciprocity: from behind, the bright field is the same mirrored in y, here with 2mm.
        torch.testing.assert_close(pattern((-1, -1, 0)), reference, atol=2e-5, rtol=0)

    @pytest.mark.parametrize("zone", [(5, 7, 3), (19, 23, 31), (1, 40, 0)])
    def test_frame_of_any_zone_is_right_handed(self, zone):
        frame = Geometry(zone=zone).frame(GALLIUM_ARSENIDE)
        np.testing.assert_allclose(frame @ frame.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(frame) == pytest.approx(1)
        np.testing.assert_allclose(frame[2], np.array(zone) / np.linalg.norm(zone), atol=1e-12)


class TestSymmetry:
    @pytest.mark.parametrize(
        ("crystal", "geometry", "unique"),
        [(STRONTIUM_TITANATE, Geometry(pixels=12), 21),  # p4mm: a wedge of an eighth
         (PYRITE, Geometry(pixels=12), 36),  # Pa-3: 2mm, by glides
         (GALLIUM_ARSENIDE, replace(ALONG_110, pixels=12), 36),  # m, and 2mm by reciprocity
         (ODD, Geometry(pixels=12), 72)],  # the half turn of reciprocity alone
        ids=["SrTiO3", "FeS2", "GaAs 110", "odd"],
    )  # fmt: skip
    def test_wedge_gives_the_whole_disk(self, crystal, geometry, unique):
        beams = Beams(limit=1.3)
        reduced = simulate(crystal, [600.0], geometry, beams, verify=False)
        other = next(
            tuple(h) for h in prepared(crystal, geometry, beams).hkl.tolist()[1:]
        )  # a dark field asks for all tilts
        full = simulate(crystal, [600.0], geometry, beams, disks=[(0, 0, 0), other], verify=False)
        assert (reduced.tilts, full.tilts) == (unique, 144)
        torch.testing.assert_close(reduced.intensity[0], full.intensity[0], atol=2e-5, rtol=0)
        assert float(full.intensity[0].std()) > 0.01

    def full(self, crystal, disk):
        geometry = Geometry(pixels=12, half_angle=0.012)
        found = simulate(crystal, [600.0], geometry, Beams(limit=1.3), disks=[(0, 0, 0), disk], verify=False)
        return found.intensity[:, 0]

    def test_disks_of_a_fourfold_axis(self):
        bright, dark = self.full(STRONTIUM_TITANATE, (2, 0, 0))
        for image in (bright.rot90(), bright.flip(0), bright.flip(1), bright.T):
            torch.testing.assert_close(image, bright, atol=2e-5, rtol=0)
        # +x reflection: its mirror plane contains x, so y may be inverted, x may not.
        torch.testing.assert_close(dark.flip(0), dark, atol=2e-5, rtol=0)
        assert float((dark.flip(1) - dark).abs().max()) > 0.05

    def test_disks_of_pyrite_are_twofold(self):
        bright, _ = self.full(PYRITE, (0, 2, 0))
        for image in (bright.flip(0), bright.flip(1)):
            torch.testing.assert_close(image, bright, atol=2e-5, rtol=0)
        assert float((bright.rot90() - bright).abs().max()) > 0.01

    def test_opposite_dark_fields_of_a_centrosymmetric_crystal(self):
        plus, minus = (self.full(PYRITE, (h, 0, 0))[1] for h in (2, -2))
        torch.testing.assert_close(minus.flip(0, 1), plus, atol=2e-5, rtol=0)

    @settings(max_examples=12)
    @given(exponent=st.floats(-7, -2), seed=st.integers(0, 100))
    def test_nearly_symmetric_crystal(self, exponent, seed):
        # What is taken for symmetric must be so within the error that the program promises, 1e-3.
        moved = np.random.default_rng(seed).uniform(-1, 1, (5, 3)) * 10**exponent
        crystal = replace(STRONTIUM_TITANATE, positions=STRONTIUM_TITANATE.positions + moved)
        geometry, beams = Geometry(pixels=4), Beams(limit=1.0)
        reduced = simulate(crystal, [2000.0], geometry, beams, verify=False).intensity
        setup = prepared(
            crystal, geometry, beams, coefficients=lambda hkl: potential_coefficients(crystal, hkl, ENERGY)
        )
        problem = setup.problem(geometry.tilts(crystal), geometry.wavenumber)
        exact = propagation.diagonalise(problem, torch.tensor([2000.0]), torch.tensor([0])).abs() ** 2
        torch.testing.assert_close(reduced.double().flatten(), exact.flatten(), atol=1e-3, rtol=0)

    @given(pixels=st.integers(1, 12), chosen=st.sets(st.integers(0, 7), max_size=3))
    def test_orbits_are_classes(self, pixels, chosen):
        turn, mirror = np.array([[0, -1], [1, 0]]), np.array([[1, 0], [0, -1]])
        every = [
            np.linalg.matrix_power(turn, k) @ m for m in (np.eye(2, dtype=int), mirror) for k in range(4)
        ]
        operations = [every[i] for i in chosen]
        representatives, membership = symmetry.orbits(pixels, operations)
        assert np.array_equal(membership[representatives], np.arange(len(representatives)))
        y, x = np.divmod(np.arange(pixels**2), pixels)
        points = np.stack([x, y], -1) - (pixels - 1) / 2
        for operation in operations:
            image = np.rint(points @ operation.T + (pixels - 1) / 2).astype(int)
            assert np.array_equal(membership[image[:, 1] * pixels + image[:, 0]], membership)

    def test_sign_of_the_structure_factors(self):
        # The inverted crystal has the conjugate structure factors.
        geometry = Geometry(zone=(1, 1, 0), pixels=12, half_angle=0.02, x_direction=(0, 0, 1))
        wanted = [(0, 0, 0), (0, 0, 2), (1, -1, 1)]

        def patterns(positions):
            crystal = replace(GALLIUM_ARSENIDE, positions=positions)
            return simulate(crystal, [400.0, 800.0], geometry, Beams(limit=1.6), disks=wanted,
                            verify=False).intensity  # fmt: skip

        one, two = (patterns(sign * GALLIUM_ARSENIDE.positions) for sign in (1, -1))
        change = (one - two).abs().amax((1, 2, 3))
        assert float(change[0]) < 1e-5
        assert float(change[1:].max()) > 0.1


class TestGradient:
    """Of intensities with respect to positions and strength of scattering, through the potential."""

    GEOMETRY, BEAMS = replace(ALONG_110, pixels=3), Beams(limit=0.75)
    DEPTH = torch.tensor([150.0, 320.0], dtype=torch.float64)

    def intensities(self, parameters, rows, *, solver, lost=0.0, real=torch.float64):
        atoms = torch.tensor(GALLIUM_ARSENIDE.positions)
        weights = torch.tensor([1.0, 1.1], dtype=torch.float64).repeat_interleave(4)

        def coefficients(hkl):
            indices = torch.as_tensor(hkl, dtype=torch.float64)
            moved = atoms + torch.cat([parameters[:3], torch.zeros(21)]).reshape(8, 3)
            phases = torch.exp(-2j * math.pi * (indices @ moved.T))
            strength = 0.02 * torch.exp(-0.03 * (indices**2).sum(-1)) * parameters[3]
            back = strength * (phases * weights).sum(-1)
            return back * (1 + 1j * lost)

        setup = prepared(GALLIUM_ARSENIDE, self.GEOMETRY, self.BEAMS, coefficients=coefficients)
        problem = setup.problem(TILTS[1:3], self.GEOMETRY.wavenumber).to("cpu", real)
        more = {"tolerance": 1e-12} if solver is propagation.chebyshev else {}
        return solver(problem, self.DEPTH, torch.tensor(rows), **more).abs() ** 2

    PARAMETERS = (0.01, -0.02, 0.015, 1.0)

    @pytest.mark.parametrize("rows", [[0], [0, 1, 4]], ids=["moments", "accumulate"])
    @pytest.mark.parametrize("lost", [0.0, 0.1])
    def test_finite_differences(self, rows, lost):
        parameters = torch.tensor(self.PARAMETERS, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(
            lambda p: self.intensities(p, rows, solver=propagation.chebyshev, lost=lost),
            parameters, atol=1e-5, rtol=1e-4,
        )  # fmt: skip

    @pytest.mark.parametrize("rows", [[0], [0, 1, 4]], ids=["moments", "accumulate"])
    @pytest.mark.parametrize(("real", "accuracy"), [(torch.float64, 1e-7), (torch.float32, 1e-3)])
    def test_same_as_through_diagonalisation(self, rows, real, accuracy):
        def gradient(solver, precision):
            parameters = torch.tensor(self.PARAMETERS, dtype=torch.float64, requires_grad=True)
            found = self.intensities(parameters, rows, solver=solver, real=precision)
            weights = torch.linspace(-1, 2, found.numel(), dtype=torch.float64).reshape(found.shape)
            (found * weights).sum().backward()
            return found.detach(), parameters.grad

        value, found = gradient(propagation.chebyshev, real)
        exact_value, exact = gradient(propagation.diagonalise, torch.float64)
        torch.testing.assert_close(value.double(), exact_value, atol=2e-5, rtol=0)
        torch.testing.assert_close(found, exact, atol=accuracy * float(exact.abs().max()), rtol=0)

    @pytest.mark.parametrize("rows", [[0], [0, 1, 4]], ids=["moments", "accumulate"])
    def test_value_does_not_depend_on_whether_a_gradient_is_wanted(self, rows):
        parameters = torch.tensor(self.PARAMETERS, dtype=torch.float64)
        plain = self.intensities(parameters, rows, solver=propagation.chebyshev)
        followed = self.intensities(parameters.requires_grad_(), rows, solver=propagation.chebyshev)
        torch.testing.assert_close(followed.detach(), plain, atol=1e-12, rtol=0)


class TestBeams:
    def test_centring_parts_the_beams(self):
        # In an F lattice half of the zero layer of [001] is out of reach; only even h and k couple.
        setup = prepared(GALLIUM_ARSENIDE, Geometry(), Beams(limit=1.5))
        assert (setup.hkl % 2 == 0).all()
        assert len(select_beams(GALLIUM_ARSENIDE, Geometry(), Beams(limit=1.5))) > 3 * len(setup.hkl)

    @given(limit=st.floats(0.3, 3.0))
    def test_resolution(self, limit):
        # As many as unit cells of the layer in a circle, to the accuracy of Gauss's circle problem.
        hkl = select_beams(STRONTIUM_TITANATE, Geometry(), Beams(limit=limit))
        lengths = np.linalg.norm(hkl, axis=1) / 3.905
        assert (hkl[:, 2] == 0).all()
        assert (hkl[0] == 0).all()
        assert (np.diff(lengths) > -1e-9).all()
        radius = limit * 3.905
        assert abs(len(hkl) - math.pi * radius**2) < 2 * math.sqrt(2) * math.pi * (radius + 1)

    def test_paper_cell(self):
        assert len(select_beams(STRONTIUM_TITANATE, Geometry(), Beams())) == 593

    def test_excitation(self):
        geometry, beams = Geometry(pixels=9, half_angle=0.01), Beams("excitation", limit=3.0, excitation=0.05)
        hkl = select_beams(STRONTIUM_TITANATE, geometry, beams)
        every = select_beams(STRONTIUM_TITANATE, geometry, Beams(limit=3.0))
        assert 1 < len(hkl) < len(every)
        # K² - |K + g|² by hand, at the edge of the field.
        incident = np.append(geometry.tilts(STRONTIUM_TITANATE).numpy(), np.zeros((81, 1)), 1)
        incident[:, 2] = np.sqrt(geometry.wavenumber**2 - (incident**2).sum(1))
        kept = set(map(tuple, hkl.tolist()))
        for row in every.tolist():
            g = np.array(row) / 3.905
            errors = geometry.wavenumber - ((incident + g) ** 2).sum(1) / geometry.wavenumber
            assert (np.abs(errors / 2).min() <= 0.05) == (tuple(row) in kept)

    def test_higher_zones(self):
        hkl = select_beams(GALLIUM_ARSENIDE, Geometry(zone=(1, 1, 1)), Beams(limit=1.0, layers=1))
        order = hkl.sum(1)
        assert set(order.tolist()) == {-1, 0, 1}

    @pytest.mark.parametrize(("a", "pool", "strong"), [(3.0, 250, 62), (5.0, 475, 118), (20.0, 2500, 625)])
    def test_sizes_of_the_paper(self, a, pool, strong):
        assert (Beams("felix").pool_size(a), Beams("felix").strong_size(a)) == (pool, strong)

    def test_felix_with_all_beams_strong(self):
        number = len(prepared(GALLIUM_ARSENIDE, ALONG_110, Beams(limit=1.2)).hkl)
        more = {"disks": [(0, 0, 0), (0, 0, 2)], "dtype": torch.float64, "verify": False}
        one = simulate(
            GALLIUM_ARSENIDE, [600.0], ALONG_110, Beams("felix", pool=number, strong=number), **more
        )
        two = simulate(GALLIUM_ARSENIDE, [600.0], ALONG_110, Beams(limit=1.2), solver="diagonalise", **more)
        assert one.solver == "felix"
        assert one.beams == two.beams == number
        torch.testing.assert_close(one.intensity, two.intensity, atol=1e-9, rtol=0)

    def test_folding_beats_dropping(self):
        geometry, depth = replace(ALONG_110, pixels=5), [300.0]
        more = {"dtype": torch.float64, "verify": False}
        pool = len(prepared(GALLIUM_ARSENIDE, geometry, Beams(limit=1.8)).hkl)
        exact = simulate(GALLIUM_ARSENIDE, depth, geometry, Beams(limit=1.8), solver="diagonalise", **more)
        dropped, folded = (
            simulate(
                GALLIUM_ARSENIDE, depth, geometry, Beams("felix", pool=pool, strong=40, bethe=bethe), **more
            )
            for bethe in (False, True)
        )
        assert dropped.beams < pool / 2
        errors = [float((each.intensity - exact.intensity).abs().max()) for each in (dropped, folded)]
        # Second order in what is left out instead of first.
        assert errors[1] < 0.5 * errors[0]

    def test_weak_beam_has_no_disk(self):
        # At a strongly excited tilt a far beam is not among the strong ones.
        found = simulate(GALLIUM_ARSENIDE, [300.0], ALONG_110, Beams("felix", pool=100, strong=20),
                         disks=[(0, 0, 0), (3, -3, 5)], verify=False).intensity  # fmt: skip
        assert float(found[1].min()) == 0.0
        assert float(found[0].min()) > 0


class TestErrorsThatAreStored:
    def test_beam_error_is_the_change_by_more_beams(self):
        geometry = Geometry(pixels=1)
        one, more = (
            simulate(STRONTIUM_TITANATE, [400.0, 900.0], geometry, Beams(limit=limit))
            for limit in (1.2, 1.56)
        )
        change = (one.intensity - more.intensity).abs().flatten()
        torch.testing.assert_close(one.beam_error, change, atol=2e-5, rtol=0)
        assert (change > 1e-3).all()

    def test_vibration_makes_beams_converge(self):
        # exp(-B g² / 4) is a tenth at 3 1/Å.
        def error(b):
            crystal = STRONTIUM_TITANATE.with_debye_waller(b)
            return float(simulate(crystal, [800.0], Geometry(pixels=4), Beams(limit=3.0)).beam_error.max())

        assert error(1.0) < 0.1 * error(0.0)

    def test_solver_error_notices_a_wrong_solver(self, monkeypatch):
        right = simulate(PYRITE, [500.0], Geometry(pixels=4), Beams(limit=1.2))
        assert float(right.solver_error.max()) < 2e-5
        amplitudes = propagation.chebyshev
        monkeypatch.setattr(propagation, "chebyshev", lambda *given, **more: 0.9 * amplitudes(*given, **more))
        wrong = simulate(PYRITE, [500.0], Geometry(pixels=4), Beams(limit=1.2))
        expected = float(right.intensity.max()) * (1 - 0.81)
        assert 0.3 * expected < float(wrong.solver_error.max()) <= expected + 1e-5

    def test_felix_error_against_everything(self):
        found = simulate(GALLIUM_ARSENIDE, [600.0], replace(ALONG_110, pixels=4),
                         Beams("felix", pool=150, strong=20))  # fmt: skip
        assert found.solver_error is None
        assert float(found.beam_error.max()) > 0.01

    def test_record(self, tmp_path):
        geometry = Geometry(pixels=4)
        one = simulate(PYRITE, [300.0, 500.0], geometry, Beams(limit=1.0))
        two = simulate(PYRITE, [300.0, 500.0], geometry, Beams(limit=1.0), disks=[(0, 0, 0), (2, 0, 0)])
        bright = record(one, PYRITE, geometry, [300.0, 500.0])
        several = record(two, PYRITE, geometry, [300.0, 500.0])
        assert (bright.attrs["layout"], several.attrs["layout"]) == ("lacbed", "lacbed_disks")
        records.save(bright, tmp_path / "out.nc")
        back = records.load(tmp_path / "out.nc")
        np.testing.assert_array_equal(back["intensity"], one.intensity[0])
        np.testing.assert_array_equal(
            several["intensity"].where(several["h"] == 2, drop=True)[0], two.intensity[1]
        )
        np.testing.assert_allclose(back["tilt_x"], geometry.angles(PYRITE))
        np.testing.assert_allclose(back["beam_error"], one.beam_error)
        assert back.attrs["beams"] == one.beams
        assert back.attrs["solver"] == "chebyshev"


class TestBadInput:
    @pytest.mark.parametrize(
        ("given_as", "message"),
        [({"thickness": []}, "no thickness"), ({"thickness": [0]}, "thickness 0 Å"),
         ({"thickness": [100, math.nan]}, "thickness nan"), ({"thickness": [-5.0]}, "thickness -5"),
         ({"thickness": [math.inf]}, "thickness inf"), ({"disks": []}, "no disk"),
         ({"disks": [(1, 0, 0)]}, r"disk \(1, 0, 0\) is not among .* extinct"),
         ({"disks": [(0, 0, 4)]}, "Laue zones"), ({"solver": "magic"}, "'magic': use auto, chebyshev"),
         ({"table": "peng"}, "'peng'")],
    )  # fmt: skip
    def test_simulate(self, given_as, message):
        thickness = given_as.pop("thickness", [100.0])
        with pytest.raises(InputError, match=message):
            simulate(GALLIUM_ARSENIDE, thickness, Geometry(pixels=2), Beams(limit=0.8), **given_as)

    @pytest.mark.parametrize(
        ("make", "message"),
        [(lambda: Geometry(zone=(0, 0, 0)), "zone axis"), (lambda: Geometry(pixels=0), "pixels=0"),
         (lambda: Geometry(half_angle=0.0), "half angle 0"),
         (lambda: Geometry(half_angle=math.nan), "half angle nan"),
         (lambda: Geometry(energy=-1.0), "energy"), (lambda: Geometry(energy=math.nan), "energy"),
         (lambda: Beams("nearest"), "'nearest': use resolution"), (lambda: Beams(limit=0), "limit 0"),
         (lambda: Beams(limit=math.nan), "limit nan"), (lambda: Beams(excitation=-1), "excitation -1"),
         (lambda: Beams(pool=0), "pool 0"), (lambda: Beams(strong=-2), "strong -2"),
         (lambda: Beams(layers=-1), "order -1"), (lambda: Absorption("full"), "'full': use none"),
         (lambda: Absorption("proportional", 1.5), "fraction 1.5"),
         (lambda: Geometry(x_direction=(0, 0, 2)).frame(PYRITE), "parallel to the zone axis"),
         (lambda: structure_factors(PYRITE, np.zeros((1, 3), int), "peng"), "'peng'")],
    )  # fmt: skip
    def test_parts(self, make, message):
        with pytest.raises(InputError, match=message):
            make()

    def test_more_beams_than_memory(self, monkeypatch):
        monkeypatch.setattr(setting_up, "_free_memory", lambda: 2.0**20)
        with pytest.raises(InputError, match=r"593 beams need .* GiB.*lower the beam limit, which is 3.5"):
            simulate(STRONTIUM_TITANATE, [100.0], Geometry(pixels=2))

    def test_absurd_limit_is_refused_before_anything_is_made(self):
        with pytest.raises(InputError, match="lower the beam limit 500"):
            simulate(STRONTIUM_TITANATE, [100.0], Geometry(pixels=2), Beams(limit=500.0))

    def test_memory_is_that_of_this_machine(self):
        found = setting_up._free_memory()
        assert found is None or 2**24 < found < 2**50


def test_patches_of_tilts_equal_one_matrix_after_the_other():
    """FELIX's rule: beams absent at a tilt are held at zero, which is as if they were not there."""
    crystal, geometry = STRONTIUM_TITANATE, Geometry(pixels=12)
    beams = Beams("felix")
    setup = setting_up.prepare(crystal, geometry, beams, Absorption(), "kirkland")
    tilts = geometry.tilts(crystal)
    problem = setup.problem(tilts, geometry.wavenumber)
    least = beams.strong_size(crystal.lattice_parameter)
    depths = torch.tensor([300.0, 2000.0], dtype=torch.float64)
    first = torch.tensor([0])
    patches, most = felix_amplitudes(problem, depths, first, setup.coefficients, least, tilts=tilts)
    single, same = felix_amplitudes(problem, depths, first, setup.coefficients, least)
    assert most == same < len(setup.hkl)
    # The tolerance of the Chebyshev series is 1e-6 a term.
    torch.testing.assert_close(patches, single, rtol=0, atol=1e-5)


def test_the_pool_of_felix_ends_with_a_whole_shell_unless_its_size_is_given():
    crystal, geometry = STRONTIUM_TITANATE, Geometry(pixels=4)

    def lengths(beams):
        setup = setting_up.prepare(crystal, geometry, beams, Absorption(), "kirkland")
        return np.round((setup.hkl**2).sum(1), 6)

    default, given = lengths(Beams("felix")), lengths(Beams("felix", pool=100))
    assert len(given) == 100
    assert len(default) >= Beams("felix").pool_size(crystal.lattice_parameter)
    hkl = setting_up.prepare(crystal, geometry, Beams(limit=6.0), Absorption(), "kirkland").hkl
    assert (np.round((hkl**2).sum(1), 6) <= default.max()).sum() == len(default)
