"""Networks beyond the paper's: canonical origins, and dark-field disks."""

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from exitwave import records
from exitwave.errors import InputError
from exitwave.papers.webb2025 import patterns, projection, scores, training, variation
from exitwave.simulate import lacbed
from exitwave.specimens.prototypes import known_crystals, other_origin

# Plane groups with and without four-fold axes, mirrors, glides and centring.
PROTOTYPES = ("rock salt", "perovskite", "diamond", "FeSi", "pyrite", "spinel", "beta-Mn", "CsCl", "MgCu2")


@cache
def potential(prototype):
    crystal = next(c for c in known_crystals() if c.prototype == prototype)
    return patterns.projected_potential(crystal, 64, 200e3)


@given(
    prototype=st.sampled_from(PROTOTYPES), row=st.integers(0, 63), column=st.integers(0, 63),
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_the_canonical_origin_does_not_depend_on_that_of_the_image(prototype, row, column):
    image = potential(prototype)
    found = projection.canonical(torch.roll(image, (row, column), (0, 1)))
    assert (found - projection.canonical(image)).abs().max() < 1e-4 * image.abs().max()
    # It is the image, moved.
    assert (scores.best_shifted(image, found) - found).abs().max() < 1e-4 * image.abs().max()


def test_the_canonical_origin_is_an_axis_of_highest_symmetry():
    image = projection.canonical(torch.roll(potential("perovskite"), (5, 11), (0, 1)))
    for turned in (image.T, image.flip(0).roll(1, 0), image.flip(1).roll(1, 1)):
        assert (turned - image).abs().max() < 1e-4 * image.abs().max()
    assert image[0, 0] == image.max()  # strontium, of the two four-fold axes


def test_both_origins_of_the_tables_become_one():
    spinel = next(c for c in known_crystals() if c.prototype == "spinel" and c.setting == "2")
    two = [patterns.projected_potential(each, 64, 200e3) for each in (spinel, other_origin(spinel))]
    assert (two[0] - two[1]).abs().max() > 0.5 * two[0].abs().max()
    one, other = (projection.canonical(each) for each in two)
    assert (one - other).abs().max() < 1e-3 * one.abs().max()


def test_disks_are_those_of_the_simulator(data):
    stored = records.load(data.changed(version="dark").files()["dark"])
    crystals = patterns.stored_crystals(data)
    assert [tuple(int(stored[n][j]) for n in "hkl") for j in range(3)] == list(variation.DISKS)
    images = stored["intensity"].values.reshape(20, 3, 32, 32)
    scale = stored["scale"].values.reshape(20, 3)
    for i in (2, 11):
        found = lacbed.simulate(
            crystals[i], [500.0], patterns.geometry(data, crystals[i], 32), patterns.about(49, crystals[i]),
            disks=variation.DISKS, verify=False,
        ).intensity[:, 0]  # fmt: skip
        again = images[i] / 255 * scale[i][:, None, None]
        assert np.abs(again - found.numpy()).max() < 0.5 / 255 * scale[i].max() + 1e-5
        # The reflection lies along x: turning x about changes the disk, turning y does not.
        assert np.abs(again[1] - again[1, ::-1]).max() < 0.01
        assert np.abs(again[1] - again[1, :, ::-1]).max() > 0.05


def test_a_reflection_that_no_beam_couples_to_is_dark(data, monkeypatch):
    silicon = next(c for c in known_crystals() if c.name == "Si")
    monkeypatch.setattr(variation, "stored_crystals", lambda _: [silicon])
    made = variation.dark_field(data.changed(shard=1, pixels=16, version="dark"))
    assert made["scale"].values[0, 1] == 0  # 200
    assert made["scale"].values[0, 2] > 0.01  # 220
    assert not made["intensity"].values[0, 1].any()


def test_disks_are_channels_of_an_inverse_network(data):
    parameters = data.changed(version="dark", direction="inverse", disks=3)
    samples = variation.load(parameters)
    assert samples.patterns.shape == (20, 3, 32, 32)
    assert training.pairs(parameters, samples).inputs.shape == (20, 3, 32, 32)
    plain = patterns.load_samples(data)
    # Like the bright fields with FELIX's beams, and the same potentials.
    assert (samples.patterns[:, :1] - plain.patterns).square().mean() < 0.05
    assert torch.equal(samples.potentials, plain.potentials)


@pytest.mark.parametrize("origin", ["given", "canonical"])
@pytest.mark.parametrize(
    "changed",
    [
        {"direction": "forward"},
        {"direction": "inverse"},
        {"version": "dark", "disks": 3, "direction": "inverse"},
    ],
)
def test_a_fold_is_trained_and_judged(data, origin, changed):
    crystals = patterns.stored_crystals(data)
    folds = (training.fold_of(data.changed(seed=seed), crystals).test.tolist() for seed in range(4))
    seed = next(n for n, fold in enumerate(folds) if any(crystals[i].setting in ("1", "2") for i in fold))
    parameters = data.changed(epochs=2, seed=seed, method="regression", origin=origin, **changed)
    found = variation.variation(parameters)
    assert found.sizes["crystal"] == int(found["samples"]) == 5
    assert float(found["mse_test"]) == pytest.approx(float(found["mse"].mean()), rel=1e-6)
    assert float(found["aligned_mse"]) <= float(found["mse_test"]) + 1e-6
    assert float(found["fraction"]) == 1
    first, second = float(found["first_origin_mse"]), float(found["second_origin_mse"])
    if origin == "canonical":
        assert first == pytest.approx(second, rel=1e-4)
    else:
        assert abs(first - second) > 1e-4 * first
    assert float(variation.variation(parameters)["mse_test"]) == float(found["mse_test"])


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"crystals": 30}, "crystals=30, but .* has 20"),
        ({"thickness": 1000.0}, "thickness=1000, but .* has 500"),
        ({"pixels": 64}, "pixels=64, but .* has 32"),
    ],
)
def test_what_is_not_stored_is_refused(data, changed, named):
    with pytest.raises(InputError, match=named):
        variation.load(data.changed(version="dark", **changed))
