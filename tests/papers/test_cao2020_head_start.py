"""Ptychography that begins with another image, at smoke scale."""

import math

import numpy as np
import pytest
import torch
import xarray as xr

from exitwave.papers.cao2020 import figures, head_start, methods, scene
from exitwave.papers.cao2020.judge import judge
from exitwave.papers.cao2020.parameters import Parameters
from exitwave.papers.cao2020.transfer import unseen_region
from exitwave.papers.figures import setup

pytestmark = pytest.mark.usefixtures("one_thread")

SMOKE = Parameters.at("smoke")


@pytest.fixture(scope="module")
def scan():
    return scene.expected(SMOKE, [scene.training_specimen(SMOKE)])[0]


@pytest.fixture(scope="module")
def counts(scan):
    return scene.counted(SMOKE, scan, torch.Generator().manual_seed(0))


def test_an_image_stands_where_its_positions_are(scan, counts):
    _, first, sampling = methods.started(SMOKE, counts, scan)
    made = head_start.under_probe(scan.phase, first, sampling, scan)
    assert made.shape == first.slices.shape
    assert made.dtype == first.slices.dtype
    torch.testing.assert_close(made.abs(), torch.ones_like(made.abs()))
    # Back at the positions, the image is what it was; a spline of a spline blurs a little.
    at = (first.positions.double() / sampling).numpy()
    back = scene.sampled(made[0].angle().double().numpy(), at).reshape(scan.phase.shape)
    inner = (slice(2, -2),) * 2
    wanted = (scan.phase - scan.phase.mean()).numpy()[inner]
    assert np.corrcoef(back[inner].ravel(), wanted.ravel())[0, 1] > 0.98
    assert np.corrcoef(back[inner].ravel(), wanted.T.ravel())[0, 1] < 0.9
    assert float(made[0].angle()[:3, :3].abs().max()) == 0


def test_the_truth_is_the_best_start(scan, counts):
    region = unseen_region(SMOKE)
    errors = [
        judge(head_start.continued(SMOKE, counts, scan, image, 1)[0], scan, region, phase=True).error
        for image in (torch.zeros_like(scan.phase), scan.phase, -scan.phase)
    ]
    assert errors[1] < errors[0] < errors[2]


def test_an_empty_object_is_the_plain_label(scan, counts):
    phase, loss = head_start.continued(SMOKE, counts, scan, torch.zeros_like(scan.phase), 3)
    plain = methods.label(SMOKE, counts, scan, iterations=3)
    torch.testing.assert_close(phase, plain.phase)
    assert loss == float(plain.loss[-1])


def test_fewest_epochs():
    errors = [0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.01]
    assert head_start.enough(errors, 0.3) == 3
    assert head_start.enough(errors, 1.0) == 1
    assert math.isnan(head_start.enough(errors, 0.001))


def test_the_study(monkeypatch):
    monkeypatch.setattr(head_start, "EPOCHS", (1, 3))
    result = head_start.head_start(SMOKE)
    assert result["error"].dims == ("start", "epoch")
    assert dict(result.sizes) == {"start": 4, "epoch": 2}
    assert (result["error"].sel(epoch=3) < result["error"].sel(epoch=1)).sel(start="empty")
    assert np.isfinite(result["likeness"]).all()
    assert float(result["fraction"]) == 1
    wanted = float(result["error"].sel(start="empty", epoch=3))
    for name in ("com", "linear", "conv"):
        found = float(result[f"{name}_epochs"])
        assert math.isnan(found) or float(result["error"].sel(start=name, epoch=int(found))) <= wanted
    for each in result.variables.values():
        assert "units" in each.attrs
    setup()
    two = xr.concat([result, result], xr.Variable("seed", [0, 1]))
    overlay = figures.from_starts(two, "error", "phase error (rad)")
    curves = {each.label: each for each in overlay if each.label}
    assert list(curves) == [
        f"from {each}" for each in ("empty", "integrated centre of mass", "linear model", "4D convolutions")
    ]
    np.testing.assert_allclose(
        curves["from linear model"].dimension_values(1), result["error"].sel(start="linear")
    )
