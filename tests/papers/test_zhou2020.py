"""The scenes of the Lorentz chapter: what the parameters say is what is simulated."""

import numpy as np
import pytest
import torch

from exitwave import metrics, records
from exitwave.errors import InputError
from exitwave.papers.zhou2020 import beyond, judge, scene, specimen
from exitwave.papers.zhou2020.parameters import MILLIMETRE, Parameters
from exitwave.project import specimen_file


class TestParameters:
    @pytest.mark.parametrize(
        ("given", "defocus"),
        [
            ({"focus": "moderate"}, (-0.15, 0.15)),
            ({"focus": "strong"}, (-1.6, 1.6)),
            ({"focus": "hybrid"}, (-0.15, 1.6)),
            ({"focus": "hybrid", "images": 4}, (-0.1, -0.2, 1.5, 1.6)),
            ({"focus": "quadratic", "images": 4}, (-0.36, -1.44, 0.36, 1.44)),
            ({"first_defocus": -3e6, "second_defocus": 1e7}, (-0.3, 1.0)),
        ],
    )
    def test_defoci_are_the_papers(self, given, defocus):
        assert np.allclose(np.array(Parameters.at(**given).defocus) / MILLIMETRE, defocus)

    @pytest.mark.parametrize(
        ("given", "named"),
        [
            ({"pixels": 500}, "do not fit the resolution target"),
            ({"pixels": 256}, "use 512 pixels of 50 Å, 256 of 100"),
            ({"first_defocus": 1e6}, "belong together"),
            ({"images": 3}, "images must be even"),
            ({"dose": 0.0}, "greater than 0"),
        ],
    )
    def test_refuses(self, given, named):
        with pytest.raises(InputError, match=named):
            Parameters.at(**given)

    def test_bars_have_any_size(self):
        assert Parameters.at(pixels=500, specimen="bars").files() == {}

    def test_the_stored_target_is_a_file_of_the_result(self):
        assert Parameters.at().files() == {"specimen": specimen_file("zhou2020", "target")}
        assert Parameters.at(magnetisation=__file__).files().keys() == {"magnetisation"}


class TestTarget:
    def test_is_relaxed_and_says_how(self):
        stored = records.load(specimen_file("zhou2020", "target"))
        assert (stored["torque"].values < specimen.TORQUE).all()
        assert stored["torque"].attrs["units"] == "A/m"
        length = np.linalg.norm(stored["direction"].values, axis=1)
        film = length > 0.5
        assert np.abs(length[film] - 1).max() < 1e-3
        assert not length[~film].any()
        assert records.provenance_of(stored)["study"] == "target"

    def test_states_differ_and_share_their_shape(self):
        films = [specimen.film(Parameters.at("smoke", seed=seed)) for seed in range(3)]
        for one in films[1:]:
            assert torch.equal(one.coverage, films[0].coverage)
            assert not torch.allclose(one.magnetisation, films[0].magnetisation)
        again = specimen.film(Parameters.at("smoke", seed=3))
        assert torch.equal(again.magnetisation, films[0].magnetisation)

    def test_binning_keeps_moment_area_and_edges(self):
        fine, coarse = (specimen.film(Parameters.at(scale)) for scale in ("workshop", "smoke"))
        assert torch.allclose(fine.magnetisation.sum((1, 2)), 16 * coarse.magnetisation.sum((1, 2)))
        assert float(fine.coverage.sum()) == pytest.approx(16 * float(coarse.coverage.sum()))
        # The first bar begins at cell 40; positions count from the centre of the first pixel.
        for film in (fine, coarse):
            left = film.bars[0].centre_x - film.bars[0].width / 2
            assert left + film.sampling[1] / 2 == pytest.approx(2000.0)

    def test_bars_are_where_the_film_is(self):
        film = specimen.film(Parameters.at("workshop"))
        for bar in film.bars:
            y, x = round(bar.centre_y / 50), round(bar.centre_x / 50)
            assert film.coverage[y, x] == 1
            along = film.magnetisation[int(bar.vertical), y, x]
            assert abs(along) > 0.6 * 8e5

    def test_widest_edges_of_the_truth_are_sharp(self):
        shown = scene.simulate(Parameters.at("workshop"))
        assert judge.edge_resolution(shown.truth, shown) < 75.0


class TestScene:
    def test_dose_is_poisson_noise_of_that_size(self):
        parameters = Parameters.at("smoke", dose=0.0025)  # 100 electrons in a pixel of 200 Å
        shown = scene.simulate(parameters)
        assert shown.noise == pytest.approx(0.1)
        clean = scene.simulate(Parameters.at("smoke"))
        difference = (shown.defocused - clean.defocused) / clean.defocused.sqrt()
        assert float(difference.std()) == pytest.approx(0.1, rel=0.05)
        assert torch.allclose(shown.defocused * 100, (shown.defocused * 100).round(), atol=1e-3)

    def test_same_seed_same_noise_whatever_the_specimen(self):
        noise = [
            scene.simulate(Parameters.at("smoke", noise=0.1, specimen=kind)).defocused
            - scene.simulate(Parameters.at("smoke", specimen=kind)).defocused
            for kind in ("target", "bars")
        ]
        assert torch.allclose(*noise, atol=1e-6)

    def test_the_better_method_finds_sign_and_size(self):
        shown = scene.simulate(Parameters.at("smoke", focus="hybrid", images=4, noise=0.02))
        phase = scene.retrieve_better(shown).phase.double()
        assert metrics.correlation(phase, shown.truth) > 0.95
        slope = float((phase * (shown.truth - shown.truth.mean())).sum())
        slope /= float((shown.truth - shown.truth.mean()).square().sum())
        assert slope == pytest.approx(1.0, abs=0.1)

    def test_a_misjudged_microscope_is_what_it_says(self):
        parameters = Parameters.at("smoke", focus="hybrid", images=4)
        shown, true = beyond.misjudged(parameters)
        assert true.shift is not None
        assert not true.shift[0].any()
        assert true.shift[1:].abs().max() > 5
        wrong = shown.instrument.defocus / torch.as_tensor(true.defocus)[1:] - 1
        assert 0 < float(wrong.abs().max()) < 0.1
        assert float(shown.instrument.convergence) == pytest.approx(1.5 * float(true.convergence))
