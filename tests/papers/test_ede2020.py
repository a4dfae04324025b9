"""The one-shot study: crystals and their partition, waves by the recipe, and what needs no network."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from exitwave.errors import InputError
from exitwave.papers.ede2020 import baselines, data, judge, optics
from exitwave.papers.ede2020.parameters import RESTRICTED, Parameters

pytestmark = pytest.mark.usefixtures("one_thread")

SMOKE = Parameters.at("smoke")
WORKSHOP = Parameters.at("workshop")


class TestCrystals:
    def test_unseen_materials_are_of_other_structure_types(self):
        crystals = data.library(WORKSHOP)
        assert len(crystals) == WORKSHOP.crystals >= 200
        assert len({c.prototype for c in crystals}) >= 25
        seen, unseen = data.partition(crystals)
        assert len(seen) + len(unseen) == len(crystals)
        assert not {c.prototype for c in seen} & {c.prototype for c in unseen}
        assert 0.15 < len(unseen) / len(crystals) < 0.35
        # Those of Fig. 7 that the tables have.
        assert {"NaCl", "CdTe", "Si"} <= {c.formula for c in unseen}
        assert any(82 in c.numbers and 40 in c.numbers for c in unseen)  # Pb(Zr, Ti)O3
        assert not any(1 in c.numbers for c in crystals)
        assert all(np.linalg.norm(c.cell, axis=1).max() <= WORKSHOP.longest_axis for c in crystals)
        assert data.ONE_MATERIAL not in {c.prototype for c in crystals}

    def test_more_crystals_than_the_tables_have_are_relatives(self):
        few = WORKSHOP.changed(longest_axis=3.4, crystals=80)
        crystals = data.library(few)
        assert len(crystals) == 80
        assert any(c.source.startswith("relative of") for c in crystals)

    def test_a_folder_of_cifs_takes_the_place_of_the_tables(self, tmp_path):
        cells = {
            "Cu": (225, "Cu 0 0 0", 3.615),
            "Ag": (225, "Ag 0 0 0", 4.086),
            "Fe": (229, "Fe 0 0 0", 2.867),
        }
        cells |= {
            "H": (225, "H 0 0 0", 3.0),
            "mix": (225, "Cu 0 0 0 0.5\nAu 0 0 0 0.5", 3.87),
            "bad": (225, "Xx 0 0 0", 3),
        }
        for name, (group, atoms, a) in cells.items():
            symbol = {225: "F m -3 m", 229: "I m -3 m"}[group]
            rows = "\n".join(" ".join((line + " 1.0").split()[:5]) for line in atoms.splitlines())
            lengths = "".join(f"_cell_length_{axis} {a}\n" for axis in "abc")
            angles = "".join(f"_cell_angle_{angle} 90\n" for angle in ("alpha", "beta", "gamma"))
            columns = "".join(
                f"_atom_site_{c}\n" for c in ("type_symbol", "fract_x", "fract_y", "fract_z", "occupancy")
            )
            head = f"data_{name}\n{lengths}{angles}_symmetry_space_group_name_H-M '{symbol}'\n"
            text = f"{head}loop_\n{columns}{rows}\n"
            (tmp_path / f"{name}.cif").write_text(text)
        parameters = SMOKE.changed(cifs=str(tmp_path))
        crystals, refused = data.from_cifs(parameters)
        assert {c.formula for c in crystals} == {"Cu", "Ag", "Fe", "CuAu"}
        assert len(refused) == 2
        assert any("hydrogen" in reason for reason in refused)
        # Copper and silver are one type, iron another, and the alloy a third, its sites half of either.
        assert len({c.prototype for c in crystals}) == 3
        assert len(data.library(parameters)) == 4
        before = parameters.key()
        (tmp_path / "Fe.cif").write_text((tmp_path / "Fe.cif").read_text().replace("2.867", "2.870"))
        assert parameters.key() != before
        # As a database is downloaded; files of folders within are a part of the parameters, too.
        deep = tmp_path / "1" / "00"
        deep.mkdir(parents=True)
        (tmp_path / "Ag.cif").rename(deep / "Cu.cif")
        (deep / "up").symlink_to(tmp_path, target_is_directory=True)
        assert {c.formula for c in data.from_cifs(parameters)[0]} == {"Cu", "Ag", "Fe", "CuAu"}
        before = parameters.key()
        (deep / "Cu.cif").write_text((deep / "Cu.cif").read_text().replace("4.086", "4.087"))
        assert parameters.key() != before
        with pytest.raises(InputError, match="in folders within it only: put one, or a link"):
            data.from_cifs(SMOKE.changed(cifs=str(tmp_path / "1")))

    def test_a_folder_without_cifs_is_refused(self, tmp_path):
        with pytest.raises(InputError, match=r"no folder with \.cif files"):
            data.library(SMOKE.changed(cifs=str(tmp_path)))

    def test_one_structure_type_cannot_be_partitioned(self):
        with pytest.raises(InputError, match="of one structure type"):
            data.partition([data.one_material()])


class TestRecipe:
    @pytest.mark.parametrize("scope", ["multi", "restricted", "single"])
    def test_waves_are_drawn_from_the_ranges_of_the_paper(self, scope):
        parameters = WORKSHOP.changed(scope=scope)
        ranges = parameters.ranges
        drawn = [data.draw(parameters, 7, "train", i) for i in range(400)]
        depth, width, tilt = (
            np.array(each)
            for each in (
                [d.exposure.depth for d in drawn],
                [d.sampling * 512 - 16 for d in drawn],
                [(*d.exposure.tilt, d.rotation) for d in drawn],
            )
        )
        for values, (low, high) in ((depth, ranges.depth), (width, ranges.width)):
            assert low <= values.min() < low + 0.05 * (high - low)
            assert high - 0.05 * (high - low) < values.max() <= high
        # 0.1° or 0.025°; a standard deviation of 1200 numbers is good to 2%: three times that.
        assert tilt.std() == pytest.approx(math.radians(0.025 if scope == "restricted" else 0.1), rel=0.06)
        assert {d.exposure.energy for d in drawn} == {80e3, 200e3, 300e3}
        indices = {i for d in drawn for i in d.zone}
        assert indices == ({0, 1} if scope == "restricted" else {0, 1, 2})
        assert all(any(d.zone) for d in drawn)
        assert set(np.unique([d.crystal for d in drawn], return_counts=True)[1]) <= {57, 58}
        assert ranges.depth[1] == (237.5 if scope == "restricted" else 1000)

    def test_every_wave_has_a_seed_of_its_own(self):
        one = data.draw(SMOKE, 5, "train", 3)
        assert one == data.draw(SMOKE.changed(seed=4, width=8), 5, "train", 3)
        assert one != data.draw(SMOKE, 5, "parameters", 3)
        assert RESTRICTED.index == 1

    def test_waves_have_mean_modulus_1_and_do_not_depend_on_the_network(self):
        found = data.load(SMOKE)
        for split, count in (("train", 24), ("parameters", 8), ("materials", 8)):
            waves = getattr(found, split)
            assert waves.shape == (count, 32, 32)
            assert torch.allclose(waves.abs().mean((1, 2)), torch.ones(count), atol=1e-5)
            assert float(waves.abs().std()) > 0.1
        assert data.load(SMOKE.changed(seed=3, method="gan", steps=9)) is found

    def test_the_single_material_is_seen_and_all_others_are_not(self):
        single = SMOKE.changed(scope="single")
        recipes = [data.draw(single, 1, "train", i) for i in range(2)]
        waves = data.waves_of(single, [data.one_material()], recipes)
        assert torch.equal(data.load(single).train[:2], waves)
        # Unseen materials are those of the scope of many.
        assert torch.equal(data.load(single).materials, data.load(SMOKE).materials)

    def test_terms_change_the_waves(self):
        one, three = (data.load(SMOKE.changed(n_terms=n)).parameters for n in (1, 3))
        assert float((one - three).norm() / three.norm()) > 0.1


class TestJudge:
    @given(turn=st.floats(-20, 20))
    @settings(max_examples=20, deadline=None)
    def test_the_cyclic_error_knows_no_global_phase_and_no_turns(self, turn):
        phase = 3 * torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        made = judge.components(phase + turn)
        assert judge.cyclic_error(2.5 * made, phase).max() < 1e-6
        # The components of Table 2 do.
        assert judge.component_error(judge.components(phase + 2 * math.pi), phase).max() < 1e-9
        if abs(math.sin(turn / 2)) > 0.1:
            assert judge.component_error(made, phase).min() > 0.01

    def test_errors_are_those_of_their_definitions(self):
        phase = torch.zeros(1, 2, 2, dtype=torch.float64)
        made = torch.tensor([[[[1.0, 0.0], [1.0, 1.0]], [[0.0, 1.0], [0.0, 0.0]]]]).double()
        # One pixel of four is a quarter turn off: both of its components by 1.
        assert float(judge.component_error(made, phase)) == pytest.approx(2 / 8)
        mean = math.atan2(1, 3)
        assert float(judge.cyclic_error(made, phase)) == pytest.approx((3 * mean + math.pi / 2 - mean) / 4)

    def test_random_guesses_err_as_integrals_say(self):
        generator = torch.Generator().manual_seed(0)
        phase = 2 * math.pi * torch.rand(4, 500, 500, generator=generator, dtype=torch.float64)
        made = judge.random_components(phase, generator)
        apart = (made - judge.components(phase)).abs()
        # A million pixels: standard errors of 4e-4; five times that.
        assert float(apart.mean()) == pytest.approx(3 / 4, abs=2e-3)
        assert float(apart.std()) == pytest.approx(math.sqrt(5 / 6 - 9 / 16), abs=2e-3)
        phases = judge.random_phases(phase, generator)
        assert float(judge.component_error(phases, phase).mean()) == pytest.approx(8 / math.pi**2, abs=2e-3)
        assert float(judge.cyclic_error(phases, phase).mean()) == pytest.approx(math.pi / 2, abs=0.01)

    def test_shapes_that_do_not_match_are_refused(self):
        with pytest.raises(InputError, match="give"):
            judge.component_error(torch.zeros(1, 1, 4, 4), torch.zeros(1, 4, 4))


class TestOptics:
    def test_eq_1_gives_back_the_potential_of_a_weak_phase_object(self):
        generator = torch.Generator().manual_seed(0)
        potential = torch.randn(16, 16, generator=generator, dtype=torch.float64)
        potential -= potential.mean()
        energy, depth = 200e3, 20.0
        phase = math.pi * 0.025079 * depth * 1e-4 * potential  # λ at 200 kV
        wave = torch.polar(torch.ones_like(phase), phase)
        found = optics.two_beam_potential(wave, energy, depth)
        assert torch.allclose(found, 1e-4 * potential, rtol=1e-3, atol=1e-7)
        assert torch.allclose(optics.two_beam_potential(wave.conj(), energy, depth), -found, atol=1e-12)
        # Two Bloch waves, ψ = 1 + i sin(π z/ξ) e^{-iφ} ξ λ U: any depth and φ.
        beat = 0.025079 * 90.0 * math.sin(math.pi * 70.0 / 90.0) * 1e-4
        blochs = 1 + 1j * beat * potential * complex(math.cos(0.4), -math.sin(0.4))
        again = optics.two_beam_potential(blochs, energy, 70.0, extinction=90.0, phase=0.4)
        assert torch.allclose(again, 1e-4 * potential, rtol=1e-3, atol=1e-7)
        with pytest.raises(InputError, match="multiple of the extinction distance"):
            optics.two_beam_potential(wave, energy, 180.0, extinction=90.0)

    def test_eq_26_is_exact_where_nothing_varies_and_worse_in_coarse_pixels(self):
        flat = torch.full((2, 15, 15), 0.7 + 0.2j)
        assert optics.roughness(flat, 5).max() < 1e-6
        x = torch.arange(45) / 45
        errors = []
        for waves in (1, 2, 4):
            phase = 2 * math.pi * waves * x
            wave = (1 + 0.5 * torch.polar(torch.ones(45), phase)).expand(45, 45)
            # |ψ|² averaged over a pixel: sinc(q p) on its wave, exactly; here over five points.
            mean = optics.pixel_average(wave, 5)
            five = sum(math.cos(2 * math.pi * waves * i / 45) for i in range(-2, 3)) / 5
            assert torch.allclose(mean[0], 1.25 + five * phase[2::5].cos(), atol=1e-5)
            errors.append(float(optics.roughness(wave, 5)))
        assert errors == sorted(errors)
        with pytest.raises(InputError, match="give an odd divisor of both"):
            optics.pixel_average(flat, 4)

    def test_finer_grids_share_the_middles_of_pixels(self):
        size, step, first = optics.supports(8, 0.2, 5)
        places = first + step * np.arange(size)
        assert places[2::5] == pytest.approx(0.2 * np.arange(8))


class TestStudies:
    def test_the_baseline_is_that_of_the_paper(self):
        found = baselines.baseline(SMOKE)
        assert float(found["error"]) == pytest.approx(0.75, abs=3e-3)
        assert float(found["deviation"]) == pytest.approx(0.520, abs=3e-3)
        assert float(found["phases_error"]) == pytest.approx(8 / math.pi**2, abs=3e-3)
        # E|cos θ| = 2/π: a network that always answers 0 beats the random baseline of the table.
        assert float(found["constant_error"]) == pytest.approx(2 / math.pi, abs=3e-3)

    def test_counts_are_those_of_the_parameters(self):
        found = baselines.dataset(SMOKE)
        assert int(found["waves"]) == 5 * (24 + 2 * 8)
        assert int(found["crystals"]) == 24
        assert 0 < float(found["lost"]) < 1
        assert float(found["slope"]) < 0.3

    def test_the_series_is_quadratic_and_in_focus_in_the_seventh(self):
        values = baselines.defoci(2.0)
        assert values.tolist() == [-72, -50, -32, -18, -8, -2, 0, 2, 8, 18, 32, 50, 72, 98]

    def test_a_focal_series_gives_the_wave_back(self):
        found = baselines.focal_series(SMOKE)
        assert float(found["error"]) < 0.1 * float(found["start_error"])
        assert float(found["unrooted_error"]) > float(found["error"])
        residual = found["residual"].values
        assert residual[-1] < 0.1 * residual[0]
        assert not baselines.focal_series(SMOKE.changed(seed=1))["phase"].values.any()

    def test_eq_1_and_eq_26_fail_where_they_should(self):
        found = baselines.equations(SMOKE)
        assert float(found["thin_correlation"]) > 0.99
        assert float(found["thick_correlation"]) < 0.9
        assert float(found["fine_error"]) < 0.1 < float(found["coarse_error"])

    def test_eq_1_with_the_best_phase_is_never_worse_and_lasts_longer(self):
        found = baselines.equations(SMOKE)
        plain, turned = (found[f"{name}_correlation"].values for name in ("potential", "turned"))
        assert (turned >= np.abs(plain) - 1e-6).all()
        assert (turned <= 1).all()
        # The weak phase object turns its sign at 100 Å, Eq. 1 does not.
        assert plain.min() < -0.9
        assert turned.min() > 0.9
