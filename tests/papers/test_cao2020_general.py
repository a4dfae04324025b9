"""The network that learns from many materials, and learns on from the scan it is given; smoke scale."""

from dataclasses import replace

import holoviews as hv
import numpy as np
import pytest
import torch
import xarray as xr

from exitwave.papers.cao2020 import figures, general, methods, scene
from exitwave.papers.cao2020.parameters import Parameters
from exitwave.papers.cao2020.specimens import monolayer
from exitwave.papers.figures import setup
from exitwave.retrieve import learned_scan
from exitwave.retrieve.ptychography import poisson_loss
from exitwave.specimens.layers import mos2

pytestmark = pytest.mark.usefixtures("one_thread")

SMOKE = Parameters.at("smoke")


def seeded(number):
    return torch.Generator().manual_seed(number)


@pytest.fixture(scope="module")
def sets():
    return general.data_sets(SMOKE)


@pytest.fixture(scope="module")
def scan():
    return scene.expected(SMOKE, [scene.training_specimen(SMOKE)])[0]


@pytest.fixture(scope="module")
def counts(scan):
    return scene.counted(SMOKE, scan, seeded(0))


# --- what is learned from -------------------------------------------------------------------------


def test_molybdenum_disulphide_and_the_sets_of_elements_of_unseen_materials_are_never_learned():
    learned, unseen = general.partition(Parameters.at("workshop"))
    assert len(learned) == 160
    assert len(unseen) >= 24
    assert not {each.elements for each in learned} & {each.elements for each in unseen}
    assert all(each.elements != mos2().elements for each in (*learned, *unseen))


def test_a_turned_specimen_keeps_its_columns():
    whole = monolayer(mos2(), (11.0, 11.0))
    for seed in range(8):
        made = general.turned(whole, np.random.default_rng(seed))
        assert set(made.size) == set(whole.size)
        assert 0.8 * len(whole.numbers) < len(made.numbers) <= len(whole.numbers)
        assert (made.positions[:, 1::-1] >= 0).all()
        assert (made.positions[:, 1::-1] <= np.array(made.size) + 1e-9).all()
        # Mo and S of one layer are as far apart as before, across the box.
        away = np.abs(made.positions[0, 1::-1] - made.positions[1:, 1::-1])
        away = np.hypot(*np.minimum(away, made.size - away).T)
        assert away[away > 0.1].min() == pytest.approx(1.824, abs=0.01)


def test_a_scan_is_begun_anywhere_and_cut_with_its_phase(sets):
    learned, _, _ = sets
    # Patterns that are the phase, bright enough to have no noise.
    ramp = torch.rand(2, 32, 32, generator=seeded(3)) + 0.5
    batch = {
        "patterns": ramp[..., None, None].expand(-1, -1, -1, 12, 12) * 1e6, "phase": ramp,
        "step": learned.step[:2], "semiangle": learned.semiangle[:2], "defocus": learned.defocus[:2],
    }  # fmt: skip
    made = general._augment(SMOKE, batch, seeded(0))
    assert made["input"].shape == (2, 24, 24, 12, 12)
    assert made["conditions"].shape == (2, 3)
    seen = made["input"].mean((3, 4)) / 1e6
    wanted = 0.1 * made["target"][:, 0]
    torch.testing.assert_close(seen - seen.mean((1, 2), keepdim=True), wanted, atol=2e-3, rtol=0)
    assert "conditions" not in general._augment(SMOKE.changed(told=False), batch, seeded(0))


def test_counted_shares_are_right_on_average():
    patterns = torch.full((2, 8, 8, 12, 12), 1 / 144)
    made = general.counted_shares(patterns, torch.tensor([30.0, 3000.0]), seeded(0))
    assert made.sum((3, 4)).mean((1, 2)).numpy() == pytest.approx([1, 1], abs=0.05)
    # Poisson: the variance of a share is the share over the electrons.
    assert made.var((1, 2, 3, 4)).numpy() == pytest.approx([1 / 144 / 30, 1 / 144 / 3000], rel=0.1)


def test_light_layers_count_as_heavy_ones():
    wanted = torch.randn(2, 1, 16, 16, generator=seeded(0))
    wanted[1] *= 10
    one = general.relative_loss(0.5 * wanted, wanted)
    # 1/4 but for the floor.
    assert float(one) == pytest.approx(0.25, abs=0.02)


# --- images ---------------------------------------------------------------------------------------


def test_an_image_is_as_large_as_its_scan_and_has_no_mean(scan, counts):
    network = general.build(SMOKE)
    shares = methods.coarse(methods.shares(SMOKE, counts, scan))
    made = general.image(network, shares, dose=1e5, semiangle=0.03, defocus=0.0)
    assert made.shape == (29, 29)
    assert abs(float(made.mean())) < 1e-6
    # What is far from an edge does not know what is beyond it.
    cut = general.image(network, shares[:24, :24], dose=1e5, semiangle=0.03, defocus=0.0)
    assert cut.shape == (24, 24)


def test_shares_of_the_truth():
    truth = torch.randn(20, 20, generator=seeded(0), dtype=torch.float64)
    assert general.share(truth + 3, truth) == pytest.approx(0, abs=1e-12)
    assert general.share(torch.zeros(20, 20), truth) == pytest.approx(1)
    assert general.share(-truth, truth) == pytest.approx(2)


# --- learning from one scan -----------------------------------------------------------------------


def test_a_network_learns_from_a_scan_without_a_label(scan, counts):
    parameters = SMOKE.changed(features=8, width=8, taught=150)
    network = general.build(parameters)
    before = {name: each.clone() for name, each in network.state_dict().items()}
    shares = methods.coarse(methods.shares(SMOKE, counts, scan))
    probe = {"dose": SMOKE.dose, "semiangle": SMOKE.semiangle, "defocus": SMOKE.defocus}
    pupil = general.taught_by(network, parameters, counts, scan, rate=1e-3)
    first, last = (
        general.share(general.image(each, shares, **probe), scan.phase) for each in (network, pupil)
    )
    assert last < 0.7 < first
    for name, each in network.state_dict().items():
        assert torch.equal(each, before[name])


def test_the_true_phase_explains_the_patterns_best(scan, counts):
    _, first, sampling = methods.started(SMOKE, counts, scan)
    model = learned_scan.model_of((29, 29), scan.step, first.probe, sampling)
    assert model.piece == 24
    truth = (scan.phase - scan.phase.mean()).float()[:24, :24]
    measured = model.counted(counts[:24, :24])
    loss = {f: float(poisson_loss(model.patterns(f * truth), measured)) for f in (1.0, 0.0, -1.0, 0.5, 1.5)}
    assert min(loss, key=loss.get) == 1.0
    # The sign and the axes.
    assert loss[-1.0] > 1.2 * loss[1.0]
    assert float(poisson_loss(model.patterns(truth.T), measured)) > 1.2 * loss[1.0]
    assert float(model.patterns(truth).sum()) == pytest.approx(float(measured.sum()), rel=0.02)


# --- the study ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(sets):
    return general.general(SMOKE)


def test_the_study_at_smoke_scale(made):
    assert all(np.isfinite(each.values).all() for each in made.data_vars.values())
    assert made["adapted_error"].dims == ("dose",)
    assert made["thick_likeness"].dims == ("thickness",)
    assert made["error"].attrs["units"] == made["alone_scaled_error"].attrs["units"] == "rad"
    assert made["resolution"].attrs["units"] == "Å"
    assert made["likeness"].attrs["units"] == "1"
    assert float(made["fraction"]) == 1


def test_scans_of_a_drawn_probe_hold_all_electrons(sets):
    for each in sets:
        total = each.patterns.sum((3, 4))
        assert 0.9 < float(total.min()) <= float(total.max()) < 1.001
        assert ((each.semiangle >= 0.015) & (each.semiangle <= 0.03)).all()
        assert (each.defocus.abs() <= 100).all()
    assert replace(sets[0], step=torch.full((3, 2), 0.3)).area.numpy() == pytest.approx(0.09)


# --- figures --------------------------------------------------------------------------------------


def curves(drawn):
    """Return the curves of an overlay by label."""
    return {each.label: each for each in drawn.traverse(lambda each: each, [hv.Curve])}


def test_the_figure_of_all_methods_has_each_at_its_mean(made):
    setup()
    names = ("adf", "com", "linear", "conv", "label")
    runs = {
        dose: xr.Dataset(
            {f"{name}_scaled_error": ("seed", [i / dose, 3 * i / dose]) for i, name in enumerate(names, 1)}
        )
        for dose in (1e3, 1e5)
    }
    several = xr.concat([made, 3 * made], "seed")
    ways = ("ssb", "parallax")
    direct = xr.Dataset(
        {"scaled_error": (("seed", "way", "dose"), np.full((2, 2, 4), 0.3))},
        {"way": list(ways), "dose": made["dose"].values},
    )  # fmt: skip
    drawn = curves(figures.every_method(runs, direct, several, "scaled_error", "error (rad)"))
    assert len(drawn) == 9
    np.testing.assert_allclose(drawn["ptychography"].array(), [[1e3, 0.01], [1e5, 1e-4]])
    np.testing.assert_allclose(drawn["parallax, 150 Å underfocus"].dimension_values(1), 0.3)
    np.testing.assert_allclose(
        drawn["network of many materials"].dimension_values(1), 2 * made["scaled_error"].values
    )
    np.testing.assert_allclose(
        drawn["a network that learns from the scan alone"].dimension_values(1),
        2 * made["alone_scaled_error"].values,
    )


def test_the_figure_of_probes_is_in_the_unit_of_its_axis(made):
    setup()
    several = xr.concat([made, made], "seed")
    drawn = figures.beyond_training(
        several, "semiangle", "semi-angle (mrad)", (0.015, 0.03), "21.4 mrad", 1e3
    )
    shown = curves(drawn)["network, told 21.4 mrad"]
    np.testing.assert_allclose(shown.dimension_values(0), [10, 15, 21.4, 30, 40])
    np.testing.assert_allclose(shown.dimension_values(1), made["semiangle_untrue_share"].values)
    axes = hv.render(drawn)
    assert (axes.xaxis[0].axis_label, axes.yaxis[0].axis_label) == (
        "semi-angle (mrad)", "error over the spread of the phase",
    )  # fmt: skip
    [span] = drawn.traverse(lambda each: each, [hv.VSpan])
    assert list(span.data) == [15, 30]
