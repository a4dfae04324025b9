"""Iteration beside a network: the same images, the same knowledge, the same errors."""

import math
from dataclasses import replace

import pytest
import torch

from exitwave.errors import InputError
from exitwave.networks.plan import Training
from exitwave.networks.released import write_released
from exitwave.papers.larsen2022 import comparison, iterative, reconstruction
from exitwave.papers.larsen2022.data import waves_of
from exitwave.retrieve.lens import Lens
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
