"""4D-STEM scans of known specimens: atoms and slices, patterns, electrons, and what judges an image."""

import math

import numpy as np
import pytest
import torch

from exitwave.errors import InputError
from exitwave.optics import interaction_constant, wavelength
from exitwave.optics.scattering import scattering_factor
from exitwave.papers.cao2020 import judge, scene, specimens
from exitwave.papers.cao2020.parameters import Parameters
from exitwave.retrieve import scan_images
from exitwave.specimens.crystals import site_distances
from exitwave.specimens.layers import known_layers, mos2

pytestmark = pytest.mark.usefixtures("one_thread")

SMOKE = Parameters.at("smoke")


@pytest.fixture(scope="module")
def scans():
    return scene.load(SMOKE, (8.0,))


class TestSpecimens:
    def test_octahedra_of_scandium(self):
        crystal = specimens.praseodymium_scandate()
        distances = site_distances(crystal.positions, crystal.cell)
        scandium, oxygen = (np.flatnonzero(crystal.numbers == z) for z in (21, 8))
        bonds = np.sort(distances[scandium[0]][oxygen])
        # Six bonds near the sum of the ionic radii, 0.745 and 1.35 Å; the next oxygen is far.
        assert bonds[:6] == pytest.approx(2.09, abs=0.05)
        assert bonds[6] > 3

    def test_pairs_of_praseodymium_are_as_far_apart_as_others_measure(self):
        # 0.59 Å: Chen et al., Science 372, 826 (2021).
        thick = scene.transfer_specimen(Parameters.at("workshop"))
        places = thick.positions[thick.numbers == 59, 1::-1]
        apart = np.mod(places - places[0] + 2, thick.size) - 2
        assert np.unique(np.hypot(*apart.T).round(3))[1] == pytest.approx(0.59, abs=0.01)

    @pytest.mark.parametrize("thickness", [8.0, 24.0, 200.0])
    def test_whole_slices_hold_as_many_atoms_as_the_cell(self, thickness):
        found = specimens.block(specimens.praseodymium_scandate(), (0, 1, 0), (1, 2), thickness)
        assert found.thickness == pytest.approx(thickness, abs=1.1)
        # 20 atoms in 8.025 Å, two cells.
        assert len(found.numbers) == pytest.approx(2 * 20 * found.thickness / 8.025, abs=8)
        assert found.positions[:, 2].min() >= 0
        assert found.positions[:, 2].max() < found.thickness
        assert found.size == pytest.approx((5.780, 2 * 5.608))

    def test_a_thicker_specimen_begins_as_a_thinner_one(self):
        thin, thick = (scene.transfer_specimen(SMOKE, each) for each in (8.0, 16.0))
        inside = thick.positions[:, 2] < thin.thickness - 1e-6
        assert np.array_equal(thick.numbers[inside], thin.numbers)
        assert np.allclose(thick.positions[inside], thin.positions)

    @pytest.mark.parametrize("layer", known_layers()[:12], ids=lambda each: each.name)
    def test_a_monolayer_repeats_across_its_box(self, layer):
        # Every atom has the surroundings that it has in the endless layer.
        found = specimens.monolayer(layer, (18.0, 15.0))
        first, second = specimens.rectangle(layer)
        cells = found.size[0] * found.size[1] / abs(np.linalg.det(layer.cell))
        assert cells == pytest.approx(round(cells), abs=1e-6)
        assert len(found.numbers) == round(cells) * layer.atoms
        box = np.diag([found.size[1], found.size[0], 100.0])
        fractions = found.positions @ np.linalg.inv(box)
        nearest = np.sort(site_distances(fractions, box) + 1e3 * np.eye(len(fractions)), 1)[:, :2]
        for number in np.unique(found.numbers):
            of_kind = nearest[found.numbers == number]
            assert len(np.unique(of_kind.round(3), axis=0)) <= (layer.numbers == number).sum()
        assert abs(float(first @ second)) < 1e-9

    def test_one_sulphur_is_missing_in_the_lower_half(self):
        whole, damaged = (specimens.monolayer(mos2(), (22, 22), vacancy=each) for each in (False, True))
        assert len(whole.numbers) - len(damaged.numbers) == 1
        assert (damaged.numbers == 42).sum() == (whole.numbers == 42).sum()
        y, x = damaged.vacancy
        assert y == pytest.approx(0.75 * damaged.size[0], abs=2)
        assert x == pytest.approx(0.5 * damaged.size[1], abs=2)
        places, charges = damaged.columns()
        alone = np.isclose(charges * damaged.thickness, 16)
        assert alone.sum() == 1
        assert places[alone][0] == pytest.approx([y, x], abs=0.05)

    def test_hollows_of_mos2_are_the_middles_of_its_hexagons(self):
        whole = specimens.monolayer(mos2(), (22, 22))
        hollows, sulphur, molybdenum = whole.kinds()
        # One of each in every cell of the layer.
        cells = (whole.numbers == 42).sum()
        assert len(hollows) == len(sulphur) == len(molybdenum) == cells
        for kind in (sulphur, molybdenum):
            apart = np.abs(hollows[0] - kind)
            apart = np.minimum(apart, whole.size - apart)
            # 3.16 Å / √3.
            assert np.hypot(*apart.T).min() == pytest.approx(1.824, abs=0.06)

    def test_an_oblique_cell_is_refused(self):
        crystal = specimens.praseodymium_scandate()
        with pytest.raises(InputError, match="no right angles"):
            specimens.block(crystal, (1, 1, 1), (1, 1), 20.0)


class TestScans:
    def test_nearly_all_electrons_are_counted(self, scans):
        # Those beyond the detector are missing, more of a thicker specimen.
        sums = [float(each.patterns.sum((2, 3)).mean()) for each in scans]
        assert 0.97 < sums[0] <= 1
        assert 0.8 < sums[2] < sums[1] < 1

    def test_atoms_are_where_the_bright_field_is_not(self, scans):
        # Centres of mass point to atoms: their integral is like the truth, and not like its mirror images.
        scan = scans[0]
        sampling = wavelength(SMOKE.energy) / (SMOKE.pixel * SMOKE.detector)
        image = scan_images.integrate(scan_images.centre_of_mass(scan.patterns, sampling), scan.step)
        truth = scan.phase

        def like(other):
            return float(np.corrcoef(image.flatten(), other.flatten())[0, 1])

        # Along x MoS2 is its own mirror image.
        others = [truth.flip(0).roll(1, 0), truth.roll(1, 0), truth.T, -truth]
        assert like(truth) > 0.6
        assert like(truth) > max(map(like, others))

    def test_dose_is_electrons_over_area(self, scans):
        found = scene.counted(SMOKE, scans[0], torch.Generator().manual_seed(0))
        total = float(found.sum()) / math.prod(scans[0].specimen.size)
        share = float(scans[0].patterns.sum((2, 3)).mean())
        electrons = SMOKE.dose * math.prod(scans[0].specimen.size)
        assert total == pytest.approx(SMOKE.dose * share, rel=5 / electrons**0.5)
        assert bool((found == found.round()).all())

    def test_networks_change_nothing_of_the_patterns(self, scans):
        assert scene.load(SMOKE.changed(seed=3, epochs=7, dose=1e4), (8.0,))[0] is scans[0]

    def test_the_truth_is_the_potential_of_its_atoms(self):
        # The mean of σV: V is 47.878 V Å² times the scattering factor at 0, f(0) of Kirkland's table.
        specimen = scene.training_specimen(SMOKE)
        phase = scene.true_phase(SMOKE, specimen)
        total = sum(
            float(scattering_factor(int(z), torch.zeros(1, dtype=torch.float64), "kirkland"))
            for z in specimen.numbers
        )
        area = math.prod(specimen.size)
        wanted = interaction_constant(SMOKE.energy) * 47.878 * total / area
        assert float(phase.mean()) == pytest.approx(wanted, rel=1e-3)

    def test_drift_moves_the_last_position(self):
        still, moving = (
            scene.positions_of(SMOKE.changed(drift=each), scene.training_specimen(SMOKE))
            for each in (0.0, 1.5)
        )
        assert torch.equal(still[0], moving[0])
        assert (moving - still)[-1].tolist() == pytest.approx([1.5, 1.5])

    def test_a_truth_that_drifts_is_that_at_its_positions(self):
        moving = SMOKE.changed(drift=0.7)
        specimen = scene.training_specimen(SMOKE)
        still, found = (scene.true_phase(each, specimen) for each in (SMOKE, moving))
        # The last position is 0.7 Å farther along both axes; so is what is there.
        there = scene.sampled(
            scene.resampled(still, 4 * SMOKE.scan).numpy(),
            4 * (scene.positions_of(moving, specimen)[-1:].numpy() / [n / SMOKE.scan for n in specimen.size]),
        )
        assert float(found[-1, -1]) == pytest.approx(float(there[0]), abs=2e-3)
        assert float(found[0, 0]) == pytest.approx(float(still[0, 0]), abs=2e-3)

    def test_places_are_found_in_a_scan_that_drifts(self):
        moving = SMOKE.changed(drift=0.7)
        specimen = scene.training_specimen(SMOKE)
        step = tuple(n / SMOKE.scan for n in specimen.size)
        scan = scene.Scan(specimen, torch.zeros(1), step, torch.zeros(SMOKE.scan, SMOKE.scan), 0.7)
        places = scene.positions_of(moving, specimen).numpy()
        expected = np.stack(np.divmod(np.arange(SMOKE.scan**2), SMOKE.scan), 1)
        assert np.abs(scan.pixels(places) - expected).max() < 1e-3

    def test_no_two_cells_are_met_at_the_same_positions(self):
        # Else the unseen half would hold the patterns of the seen one again.
        parameters = Parameters.at("workshop")
        specimen = scene.training_specimen(parameters)
        for axis, cell in enumerate((3.16 * 3**0.5, 3.16)):
            line = np.arange(parameters.scan) * specimen.size[axis] / parameters.scan
            inside = np.sort(np.mod(line, cell))
            assert np.diff(inside).min() > 0.9 * cell / parameters.scan

    def test_resampling_keeps_what_it_can_carry(self):
        y, x = torch.meshgrid(*(torch.arange(40, dtype=torch.float64) / 40,) * 2, indexing="ij")
        low = torch.cos(2 * math.pi * (3 * y - 2 * x) + 0.4)
        found = scene.resampled(low + torch.cos(2 * math.pi * 12 * x), 16)
        y, x = torch.meshgrid(*(torch.arange(16, dtype=torch.float64) / 16,) * 2, indexing="ij")
        torch.testing.assert_close(found, torch.cos(2 * math.pi * (3 * y - 2 * x) + 0.4), rtol=0, atol=1e-12)


class TestJudge:
    def test_the_truth_is_perfect_in_any_unit(self, scans):
        scan = scans[0]
        region = (slice(None), slice(None))
        score = judge.judge(7 * scan.phase + 3, scan, region, phase=False)
        assert score.likeness == pytest.approx(1)
        assert score.scaled_error == pytest.approx(0, abs=1e-9)
        # Nothing falls below 1/2: the last of 14 rings, up to the highest frequency of the coarser step.
        assert score.resolution <= 2 * max(scan.step) * 14 / 13
        assert math.isnan(score.error)
        assert judge.judge(scan.phase + 3, scan, region, phase=True).error == pytest.approx(0, abs=1e-9)

    def test_a_crystal_is_resolved_where_it_has_reflections(self):
        # Rings at 0.25 and 0.75 1/Å; the image has the first of them, and noise between both.
        step, (y, x) = (0.4, 0.4), np.indices((64, 64)) * 0.4
        low, high = (np.cos(2 * np.pi * k * x) + np.cos(2 * np.pi * k * y) for k in (0.25, 0.75))
        noise = np.random.default_rng(0).standard_normal(x.shape)
        assert 1 / 0.75 < judge.resolved(low + 0.1 * noise, low + high, step) < 1 / 0.25
        assert judge.resolved(low + high + 0.1 * noise, low + high, step) < 1.1 / 0.75
        # Nothing of it at all: the field, 25.6 Å.
        assert judge.resolved(noise, low + high, step) == pytest.approx(25.6)

    def test_noise_and_blur_are_worse(self, scans):
        scan, region = scans[0], (slice(0, 28), slice(1, -1))
        noise = torch.randn(scan.phase.shape, generator=torch.Generator().manual_seed(1)).double()
        scores = [
            judge.judge(scan.phase + amount * scan.phase.std() * noise, scan, region, phase=True)
            for amount in (0.0, 0.3, 2.0)
        ]
        for name, sign in (("contrast", -1), ("likeness", -1), ("scaled_error", 1), ("error", 1)):
            values = [sign * getattr(each, name) for each in scores]
            assert values == sorted(values), name
        assert scores[1].error == pytest.approx(0.3 * float(scan.phase.std()), rel=0.2)

    def test_contrast_is_that_of_columns_over_the_noise(self, scans):
        scan, whole = scans[0], (slice(None), slice(None))
        noise = torch.randn(scan.phase.shape, generator=torch.Generator().manual_seed(2)).double()
        strong = judge.contrast((scan.phase + 0.05 * noise).numpy(), scan, whole)
        weak = judge.contrast((scan.phase + 0.1 * noise).numpy(), scan, whole)
        assert strong == pytest.approx(2 * weak, rel=0.3)
        assert judge.contrast(noise.numpy(), scan, whole) == pytest.approx(0, abs=0.5)

    def test_a_negative_is_nothing(self, scans):
        scan, region = scans[0], (slice(13, 29), slice(2, -2))
        found = judge.judge(-scan.phase, scan, region, phase=True)
        assert found.contrast < 0
        assert found.likeness < 0.3
        assert found.scaled_error == pytest.approx(float(scan.phase[region].std(correction=0)))
        assert judge.missing(-scan.phase, scan, region).share == pytest.approx(0, abs=1e-12)

    def test_contrast_does_not_depend_on_where_the_pixels_are(self, scans):
        # Columns that are alike are so in the truth, between its pixels too: nothing but rounding is left.
        found = judge.contrast(scans[0].phase.numpy(), scans[0], (slice(2, 14), slice(2, -2)))
        assert found > 200

    def test_too_small_a_region(self, scans):
        with pytest.raises(InputError, match="hollows and"):
            judge.contrast(scans[0].phase.numpy(), scans[0], (slice(0, 2), slice(0, 2)))

    def test_the_vacancy_of_the_truth_is_whole(self, scans):
        scan, region = scans[0], (slice(13, 29), slice(2, -2))
        found = judge.missing(2 * scan.phase - 1, scan, region)
        assert found.share == pytest.approx(1)
        assert judge.missing(torch.zeros_like(scan.phase), scan, region).share == pytest.approx(0)

    def test_without_a_vacancy(self, scans):
        with pytest.raises(InputError, match="lacks no atom"):
            judge.missing(scans[1].phase, scans[1], (slice(13, 29), slice(None)))
