"""The converged version of the data set, what learns from it, and what folding the tilts is worth."""

import numpy as np
import pytest

from exitwave import records
from exitwave.errors import InputError
from exitwave.networks.pix2pix import GlobalGenerator
from exitwave.papers.webb2025 import converged, folding, patterns, training
from exitwave.simulate import lacbed


def test_disks_are_those_of_the_simulator(data):
    """Half a quadrant is stored where a mirror gives the rest; all four thicknesses."""
    parameters = data.changed(version="converged")
    stored = records.load(parameters.files()["converged"])
    crystals = patterns.stored_crystals(data)
    symmetric = stored["symmetric"].values.ravel().astype(bool)
    assert symmetric.any()
    assert not np.triu(stored["intensity"].values.reshape(20, 4, 16, 16)[symmetric], 1).any()
    field = lacbed.PeriodicGeometry(pixels=32, per_vector=4)
    scale = stored["scale"].values.reshape(20, 4)
    for j, thickness in enumerate(patterns.THICKNESSES):
        disks = converged.load(parameters.changed(thickness=thickness)).patterns
        for i in (2, 11):
            warm = patterns.specimen(parameters, crystals[i])
            assert 0.5 <= warm.debye_waller.min() <= warm.debye_waller.max() <= 1
            found = lacbed.simulate_folded(warm, [thickness], field, 1.0, verify=False).intensity[0, 0]
            assert scale[i, j] == pytest.approx(float(found.max()), rel=1e-3)
            # A grey level each for rounding, for the mirror, and for what the stretch takes away.
            assert (disks[i, 0] - patterns.stretched(found)).abs().max() < 3 / 255
    assert (stored["solver_error"].values < 1e-3).all()
    assert (stored["beam_error"].values > 0).all()


@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_a_fold_is_trained_and_judged(data, direction):
    parameters = data.changed(version="converged", direction=direction, method="regression", epochs=2)
    found = converged.converged(parameters)
    fold = training.fold_of(parameters, patterns.stored_crystals(data))
    assert found.sizes["crystal"] == int(found["samples"]) == len(fold.test) == 5
    assert float(found["mse_test"]) == pytest.approx(float(found["mse"].mean()), rel=1e-6)
    assert float(found["r_mean"]) == pytest.approx(float(found["r"].mean()), rel=1e-6)
    assert float(found["fraction"]) == 1
    assert float(converged.converged(parameters)["mse_test"]) == float(found["mse_test"])


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"crystals": 30}, "crystals=30, but .* holds 20"),
        ({"thickness": 700.0}, "thickness=700 Å is not in .*: use one of 500, 1000, 1500, 2000"),
        ({"pixels": 64}, "pixels=64, but .* has 32"),
    ],
)
def test_what_is_not_stored_is_refused(data, changed, named):
    with pytest.raises(InputError, match=named):
        converged.load(data.changed(version="converged", **changed))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_folding_is_judged_against_many_beams(data, monkeypatch):
    for name, value in (
        ("_LIMIT", 1.0),
        ("_REFERENCE", 2.0),
        ("_ABTEM", 1.0),
        ("_TILTS", 4),
        ("_EDGES", (3.0, 4.0)),
    ):
        monkeypatch.setattr(folding, name, value)
    small = GlobalGenerator(1, 1, width=8, downsamplings=2, blocks=1)
    monkeypatch.setattr(folding, "GlobalGenerator", lambda *_: small)
    found = folding.folding(data)
    assert dict(found.sizes) == {"B": 2, "thickness": 4, "edge": 2}
    assert found["edge_beams"][1] > found["edge_beams"][0]
    assert all((found[f"edge_{name}"] > 0).all() for name in ("folded", "felix", "abtem"))
    assert float(found["folded_beams"]) > float(found["chebyshev_beams"]) == 45
    assert float(found["ratio"]) == pytest.approx(float(found["folded_seconds"] / found["network_seconds"]))
    # So few beams leave much out, and more of them less.
    assert (found["limit_error"] > 0.01).all()
    assert float(found["folded_error"].mean()) < float(found["limit_error"].mean())
