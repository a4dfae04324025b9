"""Exit waves of thick crystals: against atoms in a box, analytic limits, sampling, and what is refused."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from exitwave.errors import InputError
from exitwave.optics import interaction_constant, wavelength
from exitwave.optics.scattering import _table, scattering_factor, truncated_factor
from exitwave.simulate import crystal_waves, exit_waves
from exitwave.simulate.crystal_waves import Exposure, potentials, simulate
from exitwave.specimens.crystals import Crystal
from exitwave.specimens.structures import known_structures
from exitwave.specimens.zones import along

pytestmark = pytest.mark.usefixtures("one_thread")

KNOWN = {(c.prototype, c.formula): c for c in known_structures()}
GAAS = KNOWN["zincblende", "GaAs"]
LIMIT = 1.6


def wave_of(crystal, zone, exposure, **how):
    [beams] = simulate([along(crystal, zone)], [exposure], dtype=torch.complex128, **how)
    return beams


def in_a_box(slab, exposure, shape, repeats, tilt=(0.0, 0.0)):
    """The wave of the same atoms by :mod:`exit_waves`, each column sheared by the tilt."""
    count = math.ceil(slab.period)
    step = slab.period / count
    layers = np.concatenate([slab.fractions + [0, 0, i] for i in range(repeats)])
    depth = step * np.floor(layers[:, 2] * count + 1e-6)
    places = np.column_stack([layers[:, :2] @ slab.cell, depth])
    places[:, :2] += np.outer(depth, tilt[::-1])
    sampling = (slab.cell[1, 1] / shape[0], slab.cell[0, 0] / shape[1])
    how = exit_waves.Multislice(exposure.energy, sampling, shape, thickness=0.0, beyond=0.0)
    behind = repeats * slab.period - depth.max()
    how = replace(how, beyond=behind)
    return exit_waves.simulate(np.tile(slab.numbers, repeats), places, how, dtype=torch.complex128)


@pytest.mark.parametrize("tilt", [(0.0, 0.0), (0.004, -0.007)])
@pytest.mark.parametrize(("family", "formula", "zone"), [
    ("zincblende", "GaAs", [1, 1, 0]), ("rutile", "TiO2", [1, 0, 0]), ("aragonite", "CaCO3", [0, 1, 0]),
])  # fmt: skip
def test_waves_are_those_of_the_same_atoms_in_a_box(family, formula, zone, tilt):
    """The other multislice of the project, which knows nothing of cells, periods or tilts."""
    slab = along(KNOWN[family, formula], zone)
    shape = (48, 48)
    sampling = (slab.cell[1, 1] / shape[0], slab.cell[0, 0] / shape[1])
    assert slab.cell[1, 0] == pytest.approx(0, abs=1e-9)
    exposure = Exposure(200e3, 4 * slab.period, tilt, limit=exit_waves.BAND / 2 / max(sampling))
    [beams] = simulate(
        [slab], [exposure], beyond=slab.period / math.ceil(slab.period) / 2, dtype=torch.complex128
    )
    made = beams.image(shape, sampling)
    expected = in_a_box(slab, exposure, shape, 4, tilt)
    # As two programs agree with each other (tests/oracles): the grids differ, and with them what the
    # potential has beyond the band.
    assert float((made - expected).norm() / expected.norm()) < 0.02
    # Without a tilt some of these are mirror symmetric.
    for wrong in (made.conj(), *([made.flip(0), made.flip(1)] if any(tilt) else [])):
        assert float((wrong - expected).norm() / expected.norm()) > 3 * 0.02


def test_a_thin_crystal_turns_the_phase_by_its_projected_potential():
    thin = replace(along(GAAS, [0, 0, 1]), period=0.5)
    [beams] = simulate([thin], [Exposure(300e3, 0.5, limit=6.0)], beyond=0.25, dtype=torch.complex128)
    shape = crystal_waves.shape_of(thin, 6.0)
    phase = interaction_constant(300e3) * potentials(thin, shape, 1)[0]
    expected = torch.fft.fft2(torch.polar(torch.ones_like(phase), phase), norm="forward")
    frequencies = crystal_waves.frequencies_of(thin, shape)
    inside = frequencies.square().sum(-1) <= 36.0
    # But for the propagation over half an Å, which the beams undo.
    squared = frequencies[inside].square().sum(-1)
    back = torch.exp(1j * math.pi * wavelength(300e3) * 0.5 * squared)
    assert torch.allclose(beams.amplitudes * back, expected[inside], atol=1e-9)
    mean = beams.amplitudes[squared == 0]
    assert float(mean.angle()) > 0  # atoms attract: the wave runs ahead


def test_two_beams_beat_with_their_extinction_distance():
    """At the Bragg angle the reflected beam has sin² of π t / ξ, ξ = π / (σ V_g) (two-beam theory).

    Planes that lean to +y as the beam goes down reflect it to +y.
    """
    # A tenth of a silicon atom: the other beams are far off their Bragg angles, for all that they scatter.
    crystal = Crystal("chain", np.diag([1.9, 2.0, 3.0]), [14], [[0, 0, 0]], [0.1], [0.0])
    slab = along(crystal, [0, 0, 1])
    energy, g = 80e3, 0.5
    strength = 0.1 * float(scattering_factor(14, torch.tensor(g**2).double())) * exit_waves.POTENTIAL
    extinction = math.pi / (interaction_constant(energy) * strength / crystal.volume)
    tilt = (0.5 * wavelength(energy) * g, 0.0)
    parts = (0.25, 0.5, 0.75, 1.0)
    exposures = [Exposure(energy, part * extinction, tilt, limit=0.52) for part in parts]
    for part, beams in zip(parts, simulate([slab] * 4, exposures, dtype=torch.complex128), strict=True):
        power = beams.amplitudes.abs().square()
        reflected, opposite = (power[(beams.frequencies[:, 0] - k).abs() < 1e-6].sum() for k in (g, -g))
        assert float(reflected) == pytest.approx(math.sin(math.pi * part) ** 2, abs=0.05)
        assert float(opposite) < 0.05


@given(depth=st.floats(5, 300), energy=st.sampled_from([80e3, 200e3, 300e3]), tilt=st.floats(-0.01, 0.01))
@settings(max_examples=12, deadline=None)
def test_no_electron_is_gained(depth, energy, tilt):
    beams = wave_of(GAAS, [0, 1, 1], Exposure(energy, depth, (tilt, 0.0), LIMIT))
    power = float(beams.amplitudes.abs().square().sum())
    assert power < 1 + 1e-9
    # What is lost has left the band: it grows with depth only.
    deeper = wave_of(GAAS, [0, 1, 1], Exposure(energy, depth + 50, (tilt, 0.0), LIMIT))
    assert float(deeper.amplitudes.abs().square().sum()) <= power + 1e-9


def test_a_light_crystal_with_a_wide_band_loses_nothing():
    beams = wave_of(KNOWN["diamond", "C"], [0, 0, 1], Exposure(300e3, 50, limit=6.0))
    assert float(beams.amplitudes.abs().square().sum()) == pytest.approx(1, abs=0.01)


def test_the_wave_does_not_depend_on_the_cell_or_the_grid():
    """A doubled cell has the same beams, and none between."""
    small = KNOWN["CsCl", "CsCl"]
    positions = np.concatenate([small.positions / [2, 1, 1], small.positions / [2, 1, 1] + [0.5, 0, 0]])
    double = Crystal(
        "double", small.cell * [[2], [1], [1]], np.tile(small.numbers, 2), positions, np.ones(4), np.zeros(4)
    )
    how = Exposure(200e3, 100, (0.002, 0.003), LIMIT)
    one, two = (wave_of(c, [0, 0, 1], how) for c in (small, double))
    images = [beams.image(40, 0.21) for beams in (one, two)]
    # To 1e-3 of the signal (Eq. A.1), as for atoms in a box.
    assert float(((images[0] - images[1]).norm() / images[0].norm()) ** 2) < 1e-3
    # So do finer grids: a higher limit only adds frequencies, of which those below change little.
    light = KNOWN["diamond", "C"]
    one, fine = (wave_of(light, [0, 0, 1], replace(how, limit=limit)) for limit in (LIMIT, 3 * LIMIT))
    low = fine.frequencies.norm(dim=1) <= 0.5 * LIMIT
    places = {
        tuple(k): a
        for k, a in zip(fine.frequencies[low].round(decimals=6).tolist(), fine.amplitudes[low], strict=True)
    }
    same = {
        tuple(k): a for k, a in zip(one.frequencies.round(decimals=6).tolist(), one.amplitudes, strict=True)
    }
    difference = math.sqrt(sum(abs(a - same[k]) ** 2 for k, a in places.items()))
    assert difference < 0.05 * math.sqrt(sum(abs(a) ** 2 for a in places.values()))


def test_samples_of_a_batch_do_not_know_of_each_other():
    slabs = [along(GAAS, zone) for zone in ([0, 0, 1], [1, 1, 0], [1, 1, 1], [0, 0, 1])]
    hows = [Exposure(200e3, depth, (0.001 * i, 0.0), LIMIT) for i, depth in enumerate((60, 45, 100, 20))]
    together = simulate(slabs, hows)
    for slab, how, found in zip(slabs, hows, together, strict=True):
        [alone] = simulate([slab], [how])
        assert torch.allclose(found.amplitudes, alone.amplitudes, atol=2e-6)


def test_single_precision_is_enough():
    exposure = Exposure(80e3, 1000, (0.001, 0.002), LIMIT)
    single, double = (
        simulate([along(GAAS, [0, 0, 1])], [exposure], dtype=kind)[0].amplitudes
        for kind in (torch.complex64, torch.complex128)
    )
    assert float((single - double).norm() / double.norm()) < 1e-3


def test_thinner_slices_change_less():
    exposure = Exposure(200e3, 11.3066, limit=LIMIT)
    slab = along(GAAS, [0, 0, 1])
    waves = [
        simulate([slab], [exposure], thickness=t, dtype=torch.complex128)[0] for t in (0.2, 0.7, 1.42, 5.7)
    ]
    errors = [float((w.amplitudes - waves[0].amplitudes).norm()) for w in waves[1:]]
    assert errors == sorted(errors)
    assert errors[0] < 0.2 * errors[-1]


def test_a_rotation_turns_the_image_and_an_origin_moves_it():
    beams = wave_of(GAAS, [0, 1, 2], Exposure(200e3, 60, (0.003, 0.001), LIMIT))
    upright = beams.image(41, 0.2, origin=(-4.0, -4.0))
    turned = beams.image(41, 0.2, rotation=math.pi / 2, origin=(-4.0, -4.0))
    # From x to y: what was at (y, x) = (0, r) is at (r, 0).
    assert torch.allclose(turned[25, 20], upright[20, 25], atol=1e-9)
    assert torch.allclose(turned, torch.rot90(upright, -1), atol=1e-9)
    moved = beams.image(20, 0.2, origin=(-4.0 + 0.6, -4.0 + 1.0))
    assert torch.allclose(moved, upright[3:23, 5:25], atol=1e-9)


def test_partly_occupied_sites_have_the_mean_potential():
    cell, half = 4 * np.eye(3), [0.3, 0.7]
    shared = Crystal("mix", cell, [29, 79], [[0, 0, 0]] * 2, half, np.zeros(2))
    pure = [Crystal(str(z), cell, [z], [[0, 0, 0]], [1.0], [0.0]) for z in (29, 79)]
    found, *parts = (potentials(along(c, [0, 0, 1]), (32, 32), 2) for c in (shared, *pure))
    assert torch.allclose(found, 0.3 * parts[0] + 0.7 * parts[1], atol=1e-9)


class TestTerms:
    def test_three_terms_are_the_table(self):
        squared = torch.linspace(0, 9, 50, dtype=torch.float64)
        for number in (1, 14, 49, 79):
            whole = scattering_factor(number, squared)
            assert torch.allclose(truncated_factor(number, squared, 3), whole)
            # Every term of silicon, indium and gold is positive: fewer scatter less, and two less than three.
            one, two = (truncated_factor(number, squared, terms) for terms in (1, 2))
            if number != 1:
                assert (one < two + 1e-12).all()
                assert (two < whole + 1e-12).all()

    def test_one_term_is_one_lorentzian_and_one_gaussian(self):
        """The truncated potential falls as 1/q² at once where the Gaussian has died: f q² tends to a1."""
        far = torch.tensor([400.0, 900.0], dtype=torch.float64)
        for number in (8, 14, 49):
            row = _table("kirkland")["kirkland"][number - 1]
            assert torch.allclose(
                truncated_factor(number, far, 1) * (far + row[3]), torch.tensor(row[0]).double()
            )
            whole = sum(row[i] / row[3 + i] + row[6 + i] for i in range(3))
            cut = float(truncated_factor(number, torch.zeros(1).double(), 1))
            assert cut == pytest.approx(whole - sum(row[i] / row[3 + i] + row[6 + i] for i in (1, 2)))

    def test_an_alternative_universe_has_other_waves(self):
        how = Exposure(200e3, 100, limit=LIMIT)
        one, three = (wave_of(GAAS, [0, 0, 1], how, terms=terms).amplitudes for terms in (1, 3))
        assert float((one - three).norm() / three.norm()) > 0.1
        assert float(one.abs().square().sum()) > float(three.abs().square().sum())  # softer cores


def test_gradients_are_those_of_finite_differences():
    generator = torch.Generator().manual_seed(0)
    phases = torch.rand(3, 8, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    turns, steps = torch.tensor([[0, 2], [1, 2], [0, 0]]), [3, 2]
    spread = torch.polar(torch.ones(2, 8, 8).double(), torch.rand(2, 8, 8, generator=generator).double())

    def total(values):
        spectra = crystal_waves.multislice(torch.polar(torch.ones_like(values), values), turns, spread, steps)
        return torch.stack(spectra)[:, 1:3].abs().square().sum()

    assert torch.autograd.gradcheck(total, (phases,))


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda s: Exposure(0, 10), "beam energy"),
        (lambda s: Exposure(2e5, -1), "depth"),
        (lambda s: Exposure(2e5, 10, (0.5, 0)), "two small slopes"),
        (lambda s: simulate([s], []), "give one for each"),
        (lambda s: simulate([s], [Exposure(2e5, 10)], thickness=0), "positive thickness"),
        (lambda s: simulate([s], [Exposure(2e5, 10, limit=60)]), "above 512: lower the limit"),
        (lambda s: simulate([s], [Exposure(2e5, 10)], terms=4), "4 terms"),
    ],
)
def test_bad_input_is_named_in_one_line(call, named):
    with pytest.raises(InputError, match=named) as told:
        call(along(GAAS, [0, 0, 1]))
    assert "\n" not in str(told.value)
