"""Direct methods on the scan of MoS2, at smoke scale."""

import numpy as np
import pytest
import torch

from exitwave.papers.cao2020 import direct, methods, scene
from exitwave.papers.cao2020.judge import judge
from exitwave.papers.cao2020.parameters import Parameters
from exitwave.papers.cao2020.transfer import unseen_region
from exitwave.retrieve import scan_images

pytestmark = pytest.mark.usefixtures("one_thread")

SMOKE = Parameters.at("smoke", dose=1e7)
BLURRED = SMOKE.changed(defocus=direct.DEFOCUS)


@pytest.fixture(scope="module")
def scans():
    return {at.defocus: scene.expected(at, [scene.training_specimen(at)])[0] for at in (SMOKE, BLURRED)}


@pytest.mark.parametrize("way", direct.WAYS)
def test_every_way_shows_the_atoms_and_not_their_negative(way, scans):
    at = SMOKE if way == "ssb" else BLURRED
    scan = scans[at.defocus]
    counts = scene.counted(at, scan, torch.Generator().manual_seed(0))
    made = direct.image(way, at, counts, scan)
    assert made.shape == scan.phase.shape
    region = unseen_region(at)
    seen, truth = made.double()[region].numpy(), scan.phase[region].numpy()
    right = np.corrcoef(seen.ravel(), truth.ravel())[0, 1]
    assert right > 0.5
    mirrored = np.corrcoef(seen.ravel(), truth[:, ::-1].ravel())[0, 1]
    assert mirrored < right - 0.2
    assert judge(-made, scan, region, phase=True).likeness < judge(made, scan, region, phase=True).likeness


def test_the_images_that_are_kept_are_those_of_the_bright_disk(scans):
    scan = scans[0.0]
    counts = scene.counted(SMOKE, scan, torch.Generator().manual_seed(0))
    kept = direct.gathered(SMOKE, counts)
    assert kept.pixel == pytest.approx(1 / (SMOKE.detector * methods.sampling_of(SMOKE)))
    assert kept.centres.double().numpy() == pytest.approx(
        scan_images.centre_of_mass(counts, methods.sampling_of(SMOKE)).numpy(), abs=1e-4
    )
    assert float(torch.linalg.vector_norm(kept.frequencies, dim=1).max()) <= 1.001 * 0.03 / 0.0417572


def test_the_study_at_smoke_scale():
    made = direct.direct(Parameters.at("smoke"))
    assert dict(made.sizes) == {"way": 4, "dose": 4}
    assert all(np.isfinite(each.values).all() for each in made.data_vars.values())
    # More electrons, less error.
    errors = made["scaled_error"].sel(way="ssb").values
    assert errors[-1] < errors[0]
