"""Iteration beside a network: the same images, the same knowledge, the same errors."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from skimage.registration import phase_cross_correlation

from exitwave import optics
from exitwave.errors import InputError
from exitwave.networks.plan import Training
from exitwave.networks.released import write_released
from exitwave.papers.larsen2022 import comparison, iterative, outside, reconstruction
from exitwave.papers.larsen2022.data import waves_of
from exitwave.retrieve import gerchberg_saxton
from exitwave.retrieve.lens import Lens, restored
from exitwave.simulate import imaging
from exitwave.simulate.exit_waves import smeared

from .focal_flakes import at, store

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", autouse=True)
def stored(tmp_path_factory):
    """Small data sets and a network that has hardly learnt anything."""
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXITWAVE_DATA", str(folder))
        store(folder)
        source = folder / "weights.safetensors"
        reconstruction.reconstruction(at(epochs=1), how=Training(weights=source))
        write_released(source, folder / "larsen2022" / "weights" / "some-0.safetensors", {})
        yield


@pytest.fixture(scope="module")
def exposure():
    parameters = at(images=3, dose=1e5)
    flake = iterative.unseen_flakes(parameters)[0]
    wave = waves_of(parameters, [flake])[0]
    return iterative.expose(parameters, wave, 2 * parameters.sampling, torch.Generator().manual_seed(2))


def test_seeds_judge_other_flakes():
    names = [
        [flake.positions.tobytes() for flake in iterative.unseen_flakes(at(seed=seed, judged=2))]
        for seed in range(2)
    ]
    assert len(set(names[0]) | set(names[1])) == 4


def test_a_fixed_dose_is_that_of_the_images(exposure):
    assert exposure.dose == pytest.approx(1e5 * exposure.sampling**2)
    drawn = iterative.expose(
        at(images=3), torch.ones(64, 64, dtype=torch.complex64), 0.1, torch.Generator().manual_seed(2)
    )
    assert 10**2.5 <= drawn.dose / 0.01 <= 1e5


def test_noise_is_that_of_the_dose_behind_the_detector(exposure):
    """Behind the MTF the variance of vacuum is that of the counts times the mean square of the MTF."""
    empty = iterative.expose(
        at(images=3, dose=1e5),
        torch.ones(128, 128, dtype=torch.complex64),
        0.1,
        torch.Generator().manual_seed(5),
    )
    expected = float(empty.response.square().mean()) / empty.dose
    # 3 x 128^2 pixels, some correlated: a few per cent.
    assert float(empty.images.var()) == pytest.approx(expected, rel=0.1)


def test_methods_are_not_told_astigmatism_and_coma(exposure):
    lens = iterative.lens_of(exposure)
    assert lens.astigmatism == lens.coma == (0.0, 0.0)
    assert lens.blur == 0
    assert torch.equal(lens.defocus, exposure.conditions.defocus[0].double())
    # The transfer functions of both descriptions of what is told are the same.
    told = exposure.told.transfer(exposure.shape, exposure.sampling)[0]
    assert float((lens.transfer(exposure.shape) - told).abs().max()) < 1e-4


def test_part_takes_images_with_their_defocus(exposure):
    part = exposure.part([0, 2])
    assert torch.equal(part.images[1], exposure.images[2])
    assert float(part.conditions.defocus[0, 1]) == float(exposure.conditions.defocus[0, 2])


def test_errors_of_the_truth_are_zero_and_long_waves_are_missing_from_it(exposure):
    truth = exposure.truth
    errors = iterative.errors_of(truth, truth, exposure.sampling)
    assert errors["relative"] < 1e-10
    assert errors["rmse"] < 1e-6
    # What the filter takes off is what is wrong with the truth beside the filtered truth.
    long = smeared(truth.to(torch.complex128) - 1, exposure.sampling, iterative.LONG)
    assert errors["short"] <= float(long.abs().square().mean().sqrt()) * (1 + 1e-6)


def test_likelihood_is_nearer_than_moduli_and_finds_the_lens(exposure):
    moduli, _ = iterative.retrieved(exposure, "gerchberg_saxton", 0.15)
    atoms, lens = iterative.retrieved(exposure, "gradient", 0.15)
    errors = [
        iterative.errors_of(wave, exposure.truth, exposure.sampling)["relative"] for wave in (moduli, atoms)
    ]
    assert errors[1] < errors[0] / 3, errors
    none = Lens(lens.energy, lens.sampling, lens.defocus)
    off, before = (iterative.aberrations_off(each, exposure.conditions)[0] for each in (lens, none))
    assert off < before / 3


def test_moduli_are_given_what_serves_them_best(exposure):
    """No single way of the kinds that are tried is nearer to the truth, few electrons or many."""
    lens = exposure.told.transfer(exposure.shape, exposure.sampling)[0]
    for series in (exposure, noisier(exposure)):
        wave, _ = iterative.retrieved(series, "gerchberg_saxton", 0.15)
        best = iterative.errors_of(wave, series.truth, series.sampling)["relative"]
        for images in (series.images, restored(series.images, series.response)[0]):
            for count in (12, 200):
                one = gerchberg_saxton.retrieve_wave(images, lens, iterations=count).wave
                for each in (one, smeared(one, series.sampling, 0.15)):
                    other = iterative.errors_of(each, series.truth, series.sampling)["relative"]
                    assert best <= other * (1 + 1e-6)


def noisier(exposure):
    """Return the same series with a hundredth of the electrons."""
    dose = exposure.dose / 100
    generator = torch.Generator().manual_seed(4)
    images = torch.poisson(exposure.images.clamp_min(0) * dose, generator=generator) / dose
    conditions = replace(exposure.conditions, dose=exposure.conditions.dose / 100)
    return replace(exposure, images=images, conditions=conditions)


def test_unknown_method(exposure):
    with pytest.raises(InputError, match="unknown method 'wiener'"):
        iterative.retrieved(exposure, "wiener", 0.15)


def test_aberrations_off_is_a_distance_in_the_plane(exposure):
    conditions = replace(
        exposure.conditions, astigmatism=torch.tensor([5.0]), astigmatism_azimuth=torch.tensor([math.pi / 4]),
        coma=torch.tensor([100.0]), coma_azimuth=torch.tensor([math.pi]),
    )  # fmt: skip
    lens = replace(iterative.lens_of(exposure), astigmatism=(3.0, 5.0), coma=(-100.0, 20.0))
    assert iterative.aberrations_off(lens, conditions) == pytest.approx((3.0, 20.0), abs=1e-4)


def test_iterative_means_what_it_says():
    result = iterative.iterative(at(images=2, dose=1e5, judged=2))
    for method in iterative.METHODS:
        of = result[f"{method}_relative_of"].values
        assert of.shape == (2,)
        assert float(result[f"{method}_relative"]) == pytest.approx(of.mean())
    assert float(result["gradient_relative"]) < float(result["gerchberg_saxton_relative"])


def test_compared_gives_every_method_the_same_flakes():
    parameters = at(images=5, network="some", dose=1e5, pixels=64, field=96)
    result = comparison.compared(parameters)
    assert result["network_relative_of"].shape == (3,)
    # Refined, the wave explains the images better and is nearer to the truth.
    assert float(result["refined_deviance"]) < float(result["network_deviance"])
    assert float(result["gradient_relative"]) < float(result["network_relative"])
    again = comparison.compared(parameters.changed(seed=0))
    assert float(again["network_rmse"]) == float(result["network_rmse"])
    assert int(abs(result["truth_wave"]).max()) > 0


def test_compared_needs_three_images():
    with pytest.raises(InputError, match="images=2: use 3 or more"):
        comparison.compared(at(images=2, network="some"))


@pytest.fixture(scope="module")
def flake():
    parameters = at(images=3, dose=1e6)
    chosen = iterative.unseen_flakes(parameters)[0]
    return chosen, waves_of(parameters, [chosen])[0]


class TestOutside:
    """What Table 1 has not, in the images and not in the truth."""

    def take(self, flake, **changed):
        parameters = at(images=3, dose=1e6, **changed)
        generator = torch.Generator().manual_seed(3)
        return outside.taken(parameters, *flake, 2 * parameters.sampling, generator)

    def test_nothing_is_nothing(self, flake):
        _, wave = flake
        assert torch.allclose(outside.with_threefold(wave, 0.1, 50e3, 0.0, 0.3), wave, atol=1e-5)

    @pytest.mark.parametrize(("kind", "amount"), [("threefold", 500.0), ("coma", 1800.0), ("drift", 0.3)])
    def test_changes_the_images_and_not_the_truth(self, flake, kind, amount):
        plain, strange = self.take(flake), self.take(flake, outside=kind, amount=amount)
        assert torch.equal(plain.truth, strange.truth)
        # Two images of the same differ by at most √2 times the noise of one, even if drawn anew.
        apart = (plain.images - strange.images).square().mean((1, 2)).sqrt()
        noise = float(plain.response.square().mean().sqrt()) * plain.dose**-0.5
        assert float(apart[-1]) > 2 * noise

    @pytest.mark.parametrize(
        ("kind", "amount", "told", "factor"),
        [("defocus", 1.05, "defocus", 1.05), ("spread", 1.5, "focal_spread", 1.5)],
    )
    def test_told_wrongly_the_images_are_the_same(self, flake, kind, amount, told, factor):
        plain, strange = self.take(flake), self.take(flake, outside=kind, amount=amount)
        assert torch.equal(plain.images, strange.images)
        assert torch.equal(plain.truth, strange.truth)
        values = [getattr(each.conditions, told) for each in (plain, strange)]
        assert torch.allclose(values[1], factor * values[0])
        # What methods are told follows.
        lenses = [iterative.lens_of(each) for each in (plain, strange)]
        assert not torch.equal(*(lens.transfer(plain.shape) for lens in lenses))

    def test_a_detector_said_to_be_perfect(self, flake):
        plain, strange = self.take(flake), self.take(flake, outside="detector")
        assert torch.equal(plain.images, strange.images)
        assert float(plain.response.min()) < 0.9
        assert torch.allclose(strange.response, torch.ones(()), atol=1e-6)

    def test_atoms_that_move_more_make_another_truth(self):
        """Twice the displacement is another wave; a factor of one is the usual one."""
        errors = {
            name: float(outside.outside(at(images=3, network="some", dose=1e5, judged=1, **changed))[
                "gradient_relative"
            ])
            for name, changed in {
                "usual": {},
                "once": {"outside": "motion", "amount": 1.0},
                "more": {"outside": "motion", "amount": 4.0},
            }.items()
        }  # fmt: skip
        assert errors["usual"] == errors["once"]
        assert errors["more"] != errors["usual"]

    def test_threefold_is_that_of_the_lens(self, flake):
        _, wave = flake
        shape = (wave.shape[-2], wave.shape[-1])
        both = optics.Aberrations(C10=-30.0, C23=400.0, phi23=0.3)
        lens = optics.transfer_function(shape, 0.1, energy=50e3, aberrations=both)[None]
        plain = optics.transfer_function(shape, 0.1, energy=50e3, aberrations=optics.Aberrations(C10=-30.0))[
            None
        ]
        plate = outside.with_threefold(wave, 0.1, 50e3, 400.0, 0.3)
        assert torch.allclose(imaging.images(wave, lens), imaging.images(plate, plain), atol=1e-4)

    def test_drift_moves_each_image_further(self, flake):
        plain, strange = self.take(flake), self.take(flake, outside="drift", amount=0.3)
        assert torch.allclose(plain.images[0], strange.images[0], atol=1e-5)
        for i in (1, 2):
            moved, *_ = phase_cross_correlation(
                plain.images[i].numpy(), strange.images[i].numpy(), upsample_factor=100
            )
            assert math.hypot(*moved) * 0.1 == pytest.approx(0.3 * i, abs=0.02)

    def test_moving_atoms_keep_the_mean_and_soften_the_contrast(self, flake):
        """Diffuse scattering: the coherent wave alone has less intensity than all electrons have."""
        plain, strange = self.take(flake), self.take(flake, outside="phonons")
        assert float(strange.images.mean()) == pytest.approx(float(plain.images.mean()), rel=0.01)
        agree = np.corrcoef(plain.images.flatten(), strange.images.flatten())[0, 1]
        assert 0.9 < agree < 1

    def test_the_study_tells_the_methods_apart(self):
        result = outside.outside(
            at(images=3, network="some", dose=1e5, judged=1, outside="drift", amount=0.3)
        )
        assert float(result["freer_relative"]) < float(result["gradient_relative"])
