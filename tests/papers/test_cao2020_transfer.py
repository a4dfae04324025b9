"""The paper's experiment at smoke scale: labels, both models, what they make of scans, and the figures."""

import math

import numpy as np
import pytest
import torch

from exitwave.papers.cao2020 import figures as drawn
from exitwave.papers.cao2020 import methods, scene, transfer
from exitwave.papers.cao2020.judge import judge, likeness
from exitwave.papers.cao2020.parameters import Parameters
from exitwave.papers.quantities import quantity

pytestmark = pytest.mark.usefixtures("one_thread")

SMOKE = Parameters.at("smoke")


@pytest.fixture(scope="module")
def scan():
    return scene.load(SMOKE)[0]


@pytest.fixture(scope="module")
def counts(scan):
    return scene.counted(SMOKE, scan, torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def result():
    return transfer.transfer(SMOKE)


class TestDirect:
    def test_dark_field_counts_between_two_angles(self, counts):
        side = SMOKE.detector
        k = torch.fft.fftfreq(side, 1 / side) * SMOKE.pixel
        angle = torch.hypot(k[:, None], k)
        inside = (angle >= SMOKE.inner) & (angle < SMOKE.pixel * side / 2)
        expected = counts[..., inside].sum(-1)
        torch.testing.assert_close(methods.dark_field(SMOKE, counts), expected)
        assert float(expected.sum()) > 0

    def test_ptychography_beats_the_centre_of_mass(self, counts, scan):
        region = transfer.whole_region(SMOKE)
        found = methods.label(SMOKE, counts, scan, iterations=8)
        blurred = methods.centre_of_mass(SMOKE, counts, scan)
        errors = [judge(each, scan, region, phase=True).error for each in (found.phase, blurred)]
        # The probe of this scale has 0.7 Å at best: what blurs is taken off.
        assert errors[0] < errors[1]
        assert bool(found.loss[-1] < found.loss[0])
        assert judge(-found.phase, scan, region, phase=True).error > 2 * errors[0]

    def test_a_plane_is_nothing(self):
        y, x = np.indices((9, 12))
        bump = np.exp(-((y - 4) ** 2 + (x - 5.5) ** 2) / 3)
        found = methods.without_plane(bump + 0.3 * y - 0.1 * x + 7)
        assert np.allclose(found, methods.without_plane(bump), atol=1e-12)
        assert found.mean() == pytest.approx(0, abs=1e-12)

    def test_only_what_the_scan_carries_passes(self):
        y, x = torch.meshgrid(*(torch.arange(60, dtype=torch.float64) * 0.25,) * 2, indexing="ij")
        low, high = (torch.cos(2 * math.pi * n * x / 15) for n in (3, 8))  # 0.2 and 0.53 1/Å
        found = methods.passed(low + high, 0.25, (0.5, 1.0))
        torch.testing.assert_close(found, low, rtol=0, atol=1e-10)
        # Along y the scan is finer.
        along = torch.cos(2 * math.pi * 8 * y / 15)
        torch.testing.assert_close(methods.passed(along, 0.25, (0.5, 1.0)), along, rtol=0, atol=1e-10)


class TestNetworks:
    def test_coarse_pixels_are_blocks_of_the_centred_pattern(self):
        patterns = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(1))
        centred = torch.fft.fftshift(patterns, (-2, -1))
        blocks = centred.unfold(-2, 2, 2).unfold(-2, 2, 2).sum((-2, -1))
        expected = torch.fft.ifftshift(blocks, (-2, -1))
        torch.testing.assert_close(methods.coarse(patterns), expected)

    def test_clusters_and_targets_have_one_middle(self):
        image = torch.arange(24.0 * 24).reshape(24, 24)
        for cluster in (1, 3, 5, 7):
            edge = cluster // 2
            inner = image[edge : 24 - edge, edge : 24 - edge]
            assert torch.equal(methods.middles(inner, edge), image[3:-3, 3:-3])
            widened = methods.widened(inner, cluster)
            assert widened.shape == image.shape
            assert torch.equal(widened[edge : 24 - edge, edge : 24 - edge].float(), inner)

    def test_an_image_is_where_its_patterns_are(self, counts, scan):
        # A label that is the dark field is learned, and not that of the next position.
        seen, wanted = methods.shares(SMOKE, counts, scan), methods.dark_field(SMOKE, counts).double()
        found = methods.linear(SMOKE, seen, wanted).image(seen)
        inner = (slice(3, -3), slice(3, -3))

        def like(other):
            return float(np.corrcoef(found[inner].flatten(), other[inner].flatten())[0, 1])

        assert like(wanted) > 0.9
        assert like(wanted) > max(like(wanted.roll(1, axis)) for axis in (0, 1))

    def test_the_linear_model_finds_what_a_mask_makes(self, counts, scan):
        # A label that is a round detector's image is learned without an error.
        seen = methods.shares(SMOKE, counts, scan)
        planted = methods.linear(SMOKE, seen, methods.dark_field(SMOKE, counts))
        with torch.no_grad():
            planted.model.mask.copy_(torch.randn(SMOKE.rings, generator=torch.Generator().manual_seed(2)))
        wanted = planted.image(seen)
        found = methods.linear(SMOKE, seen, wanted).image(seen)
        assert float((found - wanted).std() / wanted.std()) < 1e-2

    def test_networks_know_no_dose(self, counts, scan):
        seen = methods.shares(SMOKE, counts, scan)
        assert float(seen.sum((2, 3)).mean()) == pytest.approx(1, abs=0.05)
        twice = methods.shares(SMOKE.changed(dose=2 * SMOKE.dose), 2 * counts, scan)
        torch.testing.assert_close(seen, twice)


class TestStudy:
    def test_what_it_returns_is_what_is_described(self, result):
        for name in transfer.METHODS:
            for kind in ("contrast", "resolution", "likeness", "scaled_error"):
                assert result[f"{name}_{kind}"].attrs["units"]
            assert f"{name}_vacancy" in result
        assert math.isnan(float(result["adf_error"]))
        assert float(result["label_error"]) > 0
        assert "pso_label_contrast" not in result
        assert result["thick_contrast"].dims == ("way", "thickness")
        # The thickest is that of the rows.
        main = float(result["thick_likeness"].sel(way="conv").isel(thickness=0))
        assert result.sizes["thickness"] == 3
        assert main == pytest.approx(float(result["pso_conv_likeness"]))  # 16 Å, the thinnest at this scale
        assert float(result["fraction"]) == 1

    def test_shares_and_costs(self, result):
        assert math.isfinite(float(result["modulation_share"]))
        speed = float(result["label_seconds"]) / float(result["conv_seconds"])
        assert float(result["speed"]) == pytest.approx(speed)
        assert float(abs(result["mask"]).max()) == pytest.approx(1)
        assert float(abs(result["effect"]).max()) == pytest.approx(1)
        assert float(result["effect_least"]) == pytest.approx(float(result["effect"].min()))

    def test_pictures_are_of_the_first_seed(self, result):
        assert result["images"].shape == (len(transfer.PICTURES), SMOKE.scan, SMOKE.scan)
        assert bool((result["images"].max(("scan_y", "scan_x")) == 255).all())
        truth = result["images"].values[transfer.PICTURES.index(("MoS2", "truth"))]
        expected = scene.load(SMOKE, transfer.THINNER)[0].phase.numpy()
        assert likeness(truth / 255 * np.ptp(expected) + expected.min(), expected) > 0.99


class TestFigures:
    @pytest.fixture(autouse=True)
    def bokeh(self):
        import holoviews as hv

        hv.extension("bokeh")

    @pytest.fixture
    def run(self, result):
        """Return two seeds, the second a tenth larger in all numbers."""
        import xarray as xr

        numbers = [name for name, each in result.data_vars.items() if each.dtype.kind == "f"]
        other = result.assign({name: 1.1 * result[name] for name in numbers})
        found = xr.concat([result, other], "seed")
        return found.assign_coords(seed=quantity([0, 1], "1", "seed", ("seed",)))

    def test_table_has_means_and_spreads(self, run):
        lines = drawn.scores(run, "", transfer.METHODS).splitlines()
        assert len(lines) == 2 + len(transfer.METHODS)
        mean = float(run["adf_contrast"].mean())
        assert f"| {mean:.1f} ± " in lines[2]
        assert lines[2].startswith("| annular dark field |")
        shares = drawn.vacancies(run).splitlines()
        assert f"{float(run['label_vacancy'].mean()):.2f}" in shares[-1]

    def test_curves_have_a_point_for_each_seed(self, run):
        overlay = drawn.against_dose({1e4: run, 1e5: run}, "contrast", "", "contrast", ("adf", "conv"))
        curves = [each for each in overlay if type(each).__name__ == "Curve"]
        points = [each for each in overlay if type(each).__name__ == "Scatter"]
        assert [each.label for each in curves] == ["annular dark field", "4D convolutions"]
        assert [len(each) for each in points] == [4, 4]
        assert curves[0].dimension_values(1)[0] == pytest.approx(float(run["adf_contrast"].mean()))
        # A dark field has no phase error: nothing is drawn of it.
        empty = drawn.against_dose({1e4: run}, "error", "", "error", ("adf",))
        assert sum(len(each) for each in empty) == 0

    def test_patterns_are_shown_about_the_beam(self, scan):
        image = drawn.pattern(scan.patterns[0, 0], SMOKE.pixel, "a")
        values = image.dimension_values(2, flat=False)
        y, x = np.unravel_index(values.argmax(), values.shape)
        at = [np.unique(image.dimension_values(axis))[place] for axis, place in ((1, y), (0, x))]
        assert np.hypot(*at) < 1e3 * SMOKE.semiangle
        assert values.max() == pytest.approx(0)

    def test_masks_and_pictures(self, run):
        overlay = drawn.masks(run, 0.5)
        assert [each.label for each in overlay if type(each).__name__ == "Curve"] == ["seed 0", "seed 1"]
        images = drawn.pictures(run, "PrScO3", (1.0, 1.0))
        assert len(images) == len(transfer.EVERYWHERE) + 1
        assert len(drawn.over_thickness(run, "contrast", "contrast")) == 2 * len(transfer.EVERYWHERE)
        overlay = drawn.against_cluster({1: run, 3: run}, "contrast", "contrast")
        assert [each.label for each in overlay if type(each).__name__ == "Curve"] == [
            "linear model",
            "4D convolutions",
        ]
