"""One specimen, every method: the study at smoke scale, its measures, and the runs that are stored."""

import math

import numpy as np
import pytest
import torch

from exitwave import records
from exitwave.chapters import ledger
from exitwave.chapters.reproduce import is_stale, run_file, selected_runs
from exitwave.errors import InputError
from exitwave.optics import Aberrations, interaction_constant, transfer_function
from exitwave.papers.comparison import exposures, figures, images, judge, specimens
from exitwave.papers.comparison.beside import LEVELS, TRUTH, methods
from exitwave.papers.comparison.methods import METHODS, Recorded, retrieved
from exitwave.papers.comparison.parameters import Parameters
from exitwave.papers.comparison.words import WORDS
from exitwave.papers.verdicts import PAPERS, load_claims
from exitwave.project import project_root

pytestmark = pytest.mark.usefixtures("one_thread")

SMOKE = Parameters.at("smoke", dose=1e6)
SIGMA = float(interaction_constant(SMOKE.energy))
# What all stored results of the chapter may take, bytes.
MOST = 250_000


@pytest.fixture(scope="module")
def made():
    """The study, with plenty of electrons."""
    torch.set_num_threads(1)
    return methods(SMOKE)


@pytest.fixture(scope="module")
def recorded():
    return Recorded(SMOKE)


def seeded(made):
    """Return a point as it is stored, along seeds."""
    return made.drop_vars("picture").expand_dims(seed=[0]).assign_coords(picture=made["picture"])


class TestStudy:
    @pytest.mark.parametrize("name", METHODS)
    def test_every_method_is_better_than_an_empty_image_and_of_the_right_sign(self, made, name):
        one = made.sel(way=name)
        assert float(one["error"]) < 1
        assert float(one["filtered"]) < 0.8
        assert float(one["missing"]) > 0.1
        picture = figures.stored_picture(seeded(made), name)
        truth = figures.stored_picture(seeded(made), TRUTH)
        right = np.corrcoef(picture.ravel(), truth.ravel())[0, 1]
        assert right > 0.5
        # Neither mirrored nor transposed.
        for other in (truth[::-1], truth[:, ::-1], truth.T):
            assert np.corrcoef(picture.ravel(), other.ravel())[0, 1] < right - 0.2

    def test_every_method_has_as_many_electrons(self, made):
        assert made["electrons"].values == pytest.approx(SMOKE.dose, rel=0.02)

    def test_everything_is_there_and_finite(self, made):
        assert dict(made.sizes) | {"y": 0, "x": 0} == {
            "way": len(METHODS), "ring": judge.RINGS, "picture": len(METHODS) + 1, "y": 0, "x": 0,
        }  # fmt: skip
        for name, each in made.data_vars.items():
            assert np.isfinite(each.values).all(), name
            assert {"units", "long_name"} <= set(each.attrs), name

    def test_the_truth_is_among_the_pictures_in_its_own_scale(self, made):
        edge = (SMOKE.scan - made.sizes["y"]) // 2
        truth = specimens.truth(SMOKE)[edge:-edge, edge:-edge].numpy() / float(made["largest"])
        shown = figures.stored_picture(seeded(made), TRUTH)
        assert shown == pytest.approx(truth, abs=0.51 * (LEVELS[1] - LEVELS[0]) / 255)

    def test_the_phase_of_the_true_wave_is_nearly_the_truth(self, made):
        assert float(made["ideal_error"]) < 0.05

    def test_tables_have_a_row_for_each_method(self, made):
        run = seeded(made)
        table = figures.wall_table(run, {"one": run, "worse": run * 2}).splitlines()
        assert len(table) == 2 + len(METHODS)
        assert {line.count("|") for line in table} == {9}
        assert all("worse" in line for line in table[2:])
        assert len(figures.errors_table({"one": run}).splitlines()) == 2 + len(METHODS)

    def test_pictures_of_the_first_seed_alone(self, monkeypatch):
        from exitwave.papers.comparison import beside

        score = judge.judge(SMOKE, specimens.truth(SMOKE))
        scores = dict.fromkeys(METHODS, score)
        assert beside._pictures(SMOKE, scores)["image"].values.any()
        assert not beside._pictures(SMOKE.changed(seed=1), scores)["image"].values.any()


class TestDose:
    def test_counts_of_a_scan_and_a_hologram_are_whole_electrons(self, recorded):
        counts = recorded.focused
        assert bool((counts == counts.round()).all())
        assert float(counts.sum()) / SMOKE.box**2 == pytest.approx(SMOKE.dose, rel=0.01)
        per_pixel = SMOKE.dose * recorded.hologram.sampling**2
        electrons = recorded.hologram.intensity.double() * per_pixel
        assert float((electrons - electrons.round()).abs().max()) < 1e-2
        # The reference wave brings as many again.
        assert float(electrons.sum()) / SMOKE.box**2 == pytest.approx(2 * SMOKE.dose, rel=0.01)

    @pytest.mark.parametrize("count", [1, 3, 11])
    def test_images_share_it(self, count):
        generator = torch.Generator().manual_seed(0)
        taken = exposures.series(SMOKE, exposures.foci(SMOKE, count), generator)
        assert len(taken.images) == count
        assert taken.dose * count == pytest.approx(SMOKE.dose)
        assert float(taken.images.mean()) == pytest.approx(1, abs=0.02)

    def test_fewer_electrons_more_error(self, recorded):
        few = Recorded(SMOKE.changed(dose=1e3))
        for name in ("holography", "mass", "network"):
            assert retrieved(few, name).score.error > retrieved(recorded, name).score.error


class TestSign:
    def test_a_conjugate_wave_is_worse_than_nothing(self):
        wave = exposures.wave(SMOKE, SMOKE.energy)
        for each, good in ((wave, True), (wave.conj(), False)):
            score = judge.judge(SMOKE, images.phase(SMOKE, each, SMOKE.energy) / SIGMA)
            assert (score.error < 0.05) is good
            assert (score.error > 1.3) is not good
        assert score.filtered > 0.9

    def test_the_other_side_band_is_the_conjugate(self, recorded):
        from dataclasses import replace

        taken = recorded.hologram
        other = replace(taken, carrier=(0.0, -taken.carrier[1]))
        right, wrong = (
            judge.judge(SMOKE, images.phase(SMOKE, images.by_fringes(SMOKE, each), SMOKE.energy) / SIGMA)
            for each in (taken, other)
        )
        assert right.error < 0.5
        assert wrong.error > 1.2

    def test_energy_drops_out(self):
        for energy in (50e3, 80e3, 200e3):
            wave = exposures.wave(SMOKE, energy)
            potential = images.phase(SMOKE, wave, energy) / float(interaction_constant(energy))
            assert judge.judge(SMOKE, potential).error < 0.06


class TestJudge:
    truth = specimens.truth(SMOKE)

    def moved(self, y, x):
        from exitwave.optics import frequency_grid

        ky, kx = frequency_grid((SMOKE.scan,) * 2, SMOKE.step)
        ramp = torch.exp(-2j * math.pi * (ky * y + kx * x))
        return torch.fft.ifft2(torch.fft.fft2(self.truth) * ramp).real

    def test_the_truth_is_right(self):
        score = judge.judge(SMOKE, self.truth)
        assert score.error < 1e-6
        assert score.missing == pytest.approx(1)
        assert score.shift < 0.01
        assert 1 / score.finest == pytest.approx(specimens.highest(SMOKE), rel=0.1)

    def test_what_no_method_can_tell_does_not_count(self):
        y, x = np.indices(self.truth.shape)
        score = judge.judge(SMOKE, self.moved(0.31, -0.22) + 7 + torch.as_tensor(3.0 * y - 2.0 * x))
        assert score.error < 0.05
        assert score.shift == pytest.approx(math.hypot(0.31, 0.22), abs=0.03)

    def test_a_displacement_of_an_atom_counts(self):
        assert judge.judge(SMOKE, self.moved(0.0, 2.0)).error > 0.5

    def test_a_scale_counts_and_a_round_filter_forgives_it(self):
        score = judge.judge(SMOKE, 0.5 * self.truth)
        assert score.error == pytest.approx(0.5, abs=0.01)
        assert score.filtered < 1e-3
        assert score.spectral == pytest.approx(0.5, abs=0.02)

    def test_rings_add_up_to_the_whole(self):
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(self.truth.shape, generator=generator, dtype=torch.float64)
        score = judge.judge(SMOKE, self.truth + 30 * noise)
        which, count = judge.rings(SMOKE)
        power = torch.fft.fft2(self.truth).abs().square()
        signal = torch.zeros(count + 1, dtype=power.dtype).index_add(0, which.flatten(), power.flatten())
        whole = (torch.as_tensor(score.spectral**2) * signal[:count]).sum() / signal[:count].sum()
        assert score.error == pytest.approx(float(whole) ** 0.5, rel=1e-6)
        assert score.error == pytest.approx(
            float((score.image - self.truth).std() / self.truth.std()), rel=1e-3
        )

    def test_an_atom_that_is_not_missing(self):
        specimen = specimens.make(SMOKE)
        place = specimen.broken[0]
        how = specimens.grid_of(SMOKE, SMOKE.energy)
        extra = specimens.projected_potential(np.array([16]), torch.as_tensor(place[None, ::-1].copy()), how)
        score = judge.judge(SMOKE, self.truth + specimens.in_band(extra, SMOKE))
        assert abs(score.missing) < 0.15

    def test_values_at_places_are_those_of_the_pixels(self):
        y, x = 5, 11
        [value] = judge.at(self.truth, np.array([[y, x]]) * SMOKE.step, SMOKE)
        assert float(value) == pytest.approx(float(self.truth[y, x]), abs=1e-6 * float(self.truth.max()))

    @pytest.mark.parametrize(
        ("correlation", "signal", "window"),
        [
            ([0.9, 0.9, 0.9, 0.1], [1, 1, 1, 1], (0, 3)),
            ([0.1, 0.9, 0.1, 0.9], [1, 1, 1, 5], (3, 4)),
            # Nothing is there in the second ring: no gap.
            ([0.9, 0.1, 0.9, 0.1], [1, 0.001, 1, 1], (0, 3)),
            # Nothing at the end, which is not right for that.
            ([0.9, 0.9, 0.1, 0.1], [1, 1, 0.001, 1], (0, 2)),
        ],
    )
    def test_window(self, correlation, signal, window):
        assert judge.seen_window(np.array(correlation), np.array(signal, float)) == window

    def test_no_window(self):
        assert np.isnan(judge.seen_window(np.array([0.1, 0.2]), np.ones(2))).all()


class TestSpecimen:
    def test_lacks_single_sulphur_atoms(self):
        specimen = specimens.make(Parameters.at("workshop"))
        assert len(specimen.broken) == 2
        assert np.linalg.norm(specimen.broken[0] - specimen.broken[1]) > 4
        for places, atoms in ((specimen.broken, 1), (specimen.whole, 2)):
            for place in places:
                there = np.linalg.norm(specimen.positions[:, 1::-1] - place, axis=1) < 0.1
                assert specimen.numbers[there].tolist() == [16] * atoms

    def test_graphene_lies_behind(self):
        specimen = specimens.make(SMOKE.changed(kind="supported"))
        carbon = specimen.numbers == 6
        assert carbon.any()
        gap = specimen.positions[carbon, 2].min() - specimen.positions[~carbon, 2].max()
        assert gap == pytest.approx(3.3, abs=1e-6)
        assert (specimens.make(SMOKE).numbers != 6).all()

    def test_thick_ones_have_molybdenum_above_sulphur(self):
        thin, thick = (specimens.make(SMOKE.changed(trouble=each)) for each in ("none", "thick"))
        assert len(thick.numbers) == specimens.THICK * len(thin.numbers)
        layer = thick.positions[:, 2] // 6.15
        lower, upper = (
            thick.positions[(layer == i) & (thick.numbers == z), :2] for i, z in ((0, 42), (1, 16))
        )
        nearest = np.linalg.norm(lower[:, None] - upper, axis=-1).min(1)
        assert (nearest < 0.01).any()

    def test_no_room_for_vacancies(self):
        with pytest.raises(InputError, match="vacancies=40"):
            specimens.make(SMOKE.changed(vacancies=40))

    def test_what_is_not_told(self):
        generators = [torch.Generator().manual_seed(0) for _ in range(2)]
        plain, wrong = (
            exposures.series(SMOKE.changed(trouble=trouble), exposures.foci(SMOKE, 3), generator)
            for trouble, generator in zip(("none", "focus"), generators, strict=True)
        )
        assert torch.equal(plain.lens.defocus, wrong.lens.defocus)
        # The image 30 Å further on is that which was told to be there.
        again = exposures.series(
            SMOKE.changed(trouble="focus", defocus=SMOKE.defocus + 30), exposures.foci(
                SMOKE.changed(defocus=SMOKE.defocus + 30), 3), torch.Generator().manual_seed(0)
        )  # fmt: skip
        apart = [float((each.images - plain.images).square().mean()) for each in (wrong, again)]
        assert apart[1] < 0.5 * apart[0]


def test_every_method_has_its_words():
    assert list(WORDS) == list(METHODS)


def passed_by_lens(parameters, name):
    """Return the share of the electrons of an exit wave that reach the camera."""
    energy = parameters.network_energy if name in ("network", "refined") else parameters.energy
    wave = exposures.wave(parameters, energy)
    lens = transfer_function(
        tuple(wave.shape), parameters.box / len(wave), energy=energy, aberrations=Aberrations(),
        focal_spread=parameters.focal_spread,
    )  # fmt: skip
    spectrum = torch.fft.fft2(wave, norm="ortho").abs().square()
    return float((spectrum * lens.abs().square()).mean())


class TestRuns:
    def test_there_are_runs_and_no_claims(self):
        assert not load_claims("comparison").claims
        assert list(selected_runs("comparison", "free")) == ["free"]
        with pytest.raises(InputError, match="'claims' of comparison"):
            selected_runs("comparison", "claims")

    def test_the_ledger_has_no_empty_paper(self):
        assert "comparison" not in PAPERS
        assert "comparison" not in {row.paper for row in ledger.ledger(scales=["smoke"])}
        with pytest.raises(InputError, match="comparison follows no paper"):
            ledger.ledger(["comparison"])

    @pytest.mark.parametrize("name", load_claims("comparison").runs)
    def test_what_is_stored_is_what_this_version_makes(self, name):
        run = load_claims("comparison").runs[name]
        stored = records.load(run_file("comparison", "workshop", name))
        assert not is_stale(stored, "comparison", run, "workshop")
        assert stored.sizes["seed"] == run.seeds
        assert stored["way"].values.tolist() == list(METHODS)
        parameters = Parameters.at("workshop", **run.settings)
        # Four standard deviations of counting, and what leaves a detector of scans.
        noise = 4 / math.sqrt(parameters.dose * parameters.box**2) + 0.0015
        counted = stored["electrons"].sel(seed=0)
        for name in METHODS:
            # The dose meets the specimen; of what is scattered far the envelope of a lens loses some.
            passed = 1.0 if METHODS[name] == "scan" else passed_by_lens(parameters, name)
            assert float(counted.sel(way=name)) == pytest.approx(passed * parameters.dose, rel=noise)

    def test_they_are_small(self):
        files = [run_file("comparison", "workshop", name) for name in load_claims("comparison").runs]
        assert sum(each.stat().st_size for each in files) < MOST

    def test_the_page_says_what_simulation_and_likelihood_share(self):
        text = (project_root() / "notebooks" / "comparison.py").read_text(encoding="utf-8")
        assert "from the same table of scattering factors that the simulation uses" in text
