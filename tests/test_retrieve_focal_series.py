"""``exitwave retrieve focal-series`` and the layers below it, on simulated series of a known wave."""

import math
import re
import types
from dataclasses import replace

import numpy as np
import pytest
import torch

from exitwave import metrics, optics, records
from exitwave.cli import wave_preview, waves
from exitwave.errors import InputError
from exitwave.networks.fusionnet import FusionNet
from exitwave.networks.released import write_released
from exitwave.networks.weights import load_network, save_weights, write_tensors
from exitwave.retrieve import exit_wave, gerchberg_saxton, learned
from exitwave.retrieve.alignment import Alignment
from exitwave.retrieve.lens import FREE, FreeLens, Lens
from exitwave.retrieve.wave_series import WaveSeries, read_series
from exitwave.simulate import imaging
from exitwave.simulate.exit_waves import Multislice, simulate, smeared
from exitwave.specimens import flakes, layers

pytestmark = pytest.mark.usefixtures("one_thread")

ENERGY, FINE, SIZE = 50e3, 0.12, 80
DOSE = 1e4  # electrons per Å² and image
DEFOCUS = (20.0, 70.0, 120.0)
KNOWN = {"focal_spread": 7.0, "blur": 0.1}
FAULTS = {"astigmatism": (12.0, -6.0), "coma": (150.0, 200.0)}
LENGTH = float(optics.wavelength(ENERGY))
QUARTER = math.pi / 4  # of detail of 1 Å: a fault that does less is as good as none


class Simulated:
    """A flake of MoS2 in a box that repeats."""

    def __init__(self, defocus=DEFOCUS, shift=None, dose=DOSE, detector=None, **faults):
        generator = np.random.default_rng(0)
        flake = flakes.nanoflake(
            layers.mos2(), generator, size=(SIZE * FINE,) * 2, diameter=(5.5, 5.5), margin=1.0
        )
        how = Multislice(ENERGY, FINE, (SIZE, SIZE), displacement=0.003)
        self.wave = smeared(simulate(flake.numbers, flake.positions, how), FINE, 0.15)
        moved = None if shift is None else torch.as_tensor(shift, dtype=torch.float64)
        self.lens = Lens(
            ENERGY, FINE, torch.tensor(defocus, dtype=torch.float64), shift=moved, **(KNOWN | FAULTS | faults)
        )
        clean = FreeLens(self.lens, (), (SIZE, SIZE)).images(self.wave).clamp_min(0)
        self.images = imaging.add_poisson_noise(clean, dose, (FINE,) * 2, torch.Generator().manual_seed(0))
        if detector is not None:
            c1, c2, c3 = detector
            self.images = optics.apply_mtf(self.images, optics.mtf((SIZE, SIZE), c1=c1, c2=c2, c3=c3))

    def record(self, factor=1.0, scale=1.0, chosen=slice(None)):
        defocus = factor * self.lens.defocus.numpy()[chosen]
        return records.images(
            (scale * self.images[chosen]).numpy(), defocus=defocus, sampling=FINE, energy=ENERGY
        )

    def error(self, result):
        """Return Eq. A.1 where the record is in the field."""
        made = torch.as_tensor(records.from_parts(result["wave"]))
        top, left = (round(float(result[name][0]) / FINE) for name in ("y", "x"))
        truth = self.wave[top : top + made.shape[0], left : left + made.shape[1]]
        return float(metrics.relative_wave_error(made, truth, aligned=True))


class Perfect(torch.nn.Module):
    """A network that knows the wave, and keeps what it was given."""

    def __init__(self, wave, images=3):
        super().__init__()
        self.architecture = {"in_channels": images, "out_channels": 2, "depth": 5}
        self.wave = wave

    def forward(self, given):
        self.given = given
        made = torch.zeros(1, 2, *given.shape[-2:])
        made[0, :, : self.wave.shape[0], : self.wave.shape[1]] = torch.stack(
            [self.wave.real - 1, self.wave.imag]
        )
        return made


@pytest.fixture(scope="module")
def series():
    return Simulated()


def retrieve(simulated, **options):
    chosen = {"register": False, "iterations": 60} | KNOWN | options
    if chosen.get("method", "gradient") == "gradient":
        chosen = {"margin": 0} | chosen
    return exit_wave.retrieve(simulated.record(), **chosen)


@pytest.fixture(scope="module")
def result(series):
    return retrieve(series)


@pytest.fixture(scope="module")
def iterated(series):
    return retrieve(series, method="gerchberg-saxton", **FAULTS)


def distance(found, name):
    return math.hypot(*(np.asarray(found) - FAULTS[name]))


class TestMethods:
    def test_gradient_finds_wave_and_aberrations(self, series, result, iterated):
        """Knowing less it errs by less than a third."""
        records.validate(result, "wave")
        assert series.error(result) < series.error(iterated) / 3
        assert math.pi * LENGTH * distance(result["astigmatism"], "astigmatism") < QUARTER
        assert 2 * math.pi / 3 * LENGTH**2 * distance(result["coma"], "coma") < QUARTER
        assert not exit_wave.unexplained(result).any()
        assert not result["shift"].any()
        assert result["atoms"].shape == (3, SIZE, SIZE)

    def test_gerchberg_saxton_is_that_of_the_module(self, series, iterated):
        images, _ = read_series(series.record(), series.lens).quiet()
        found = gerchberg_saxton.retrieve_wave(images, series.lens.transfer((SIZE, SIZE)), iterations=60)
        np.testing.assert_allclose(records.from_parts(iterated["wave"]), found.wave, atol=1e-4)
        assert {"atoms", "astigmatism", "coma"}.isdisjoint(iterated.data_vars)

    def test_network_is_given_contrasts_in_order_of_defocus(self, series):
        perfect = Perfect(series.wave)
        order = [2, 0, 1]
        record = series.record(chosen=order)
        found = exit_wave.retrieve(record, method="network", network=perfect, register=False, **KNOWN)
        given = perfect.given[0]
        assert given.shape == (3, 96, 96)  # halved five times
        assert not given[:, SIZE:].any()
        over = series.images / series.images.mean((1, 2), keepdim=True)
        torch.testing.assert_close(given[:, :SIZE, :SIZE], over - 1, atol=1e-5, rtol=0)
        assert found["image"].values.tolist() == [1, 2, 3]
        assert found["defocus"].values.tolist() == [120.0, 20.0, 70.0]
        # The wave stays, and the aberrations that go with it are found.
        assert series.error(found) < 1e-3
        assert math.pi * LENGTH * distance(found["astigmatism"], "astigmatism") < QUARTER
        assert not exit_wave.unexplained(found).any()

    def test_a_doubtful_network_is_mended(self, series):
        other = series.wave + 0.3 * (series.wave.roll((30, 20), (0, 1)) - 1)
        options = {"method": "network", "network": Perfect(other)}
        trusted, doubted = (retrieve(series, **options, doubt=doubt) for doubt in (None, 0.3))
        assert series.error(doubted) < series.error(trusted) / 2
        assert (doubted["residual"].values < trusted["residual"].values).all()

    def test_one_image(self, series):
        alone = types.SimpleNamespace(record=lambda: series.record(chosen=[1]))
        found = retrieve(alone, register=True, refine_defocus=True)
        assert series.error(found) < 0.5
        with pytest.raises(InputError, match="needs two images or more: use gradient"):
            retrieve(alone, method="gerchberg-saxton")

    def test_the_sign_of_the_defocus(self, series):
        told = []
        turned = exit_wave.retrieve(
            series.record(factor=-1), margin=0, iterations=60, warn=told.append, register=False, **KNOWN
        )
        assert series.error(turned) > 1
        assert "underfocus is positive" in turned.attrs["warning"]
        assert told == [turned.attrs["warning"]]


class TestQuiet:
    """Images for a method that does not know noise."""

    DETECTOR = (0.0, 0.15, 1.2)

    @pytest.mark.parametrize("dose", [1e3, 1e4])
    def test_gerchberg_saxton_is_nearer_the_truth_with_them(self, dose):
        noisy = Simulated(dose=dose, detector=self.DETECTOR)
        read = read_series(noisy.record(), noisy.lens, detector=self.DETECTOR, dose=dose)
        transfer = noisy.lens.transfer((SIZE, SIZE))
        errors = [
            float(
                metrics.relative_wave_error(
                    gerchberg_saxton.retrieve_wave(images, transfer, iterations=60).wave,
                    noisy.wave,
                    aligned=True,
                )
            )
            for images in (read.quiet()[0], read.sharp()[0], read.images)
        ]
        assert errors[0] < min(errors[1:]), errors

    def test_noise_is_taken_out_and_nothing_else(self):
        noisy, clean = Simulated(dose=1e3), Simulated(dose=1e12)
        images = clean.images / clean.images.mean((1, 2), keepdim=True)
        quiet = read_series(noisy.record(), noisy.lens, dose=1e3).quiet()[0]
        left = read_series(clean.record(), clean.lens, dose=1e12).quiet()[0]
        # In float32 a thousandth of the contrast.
        assert float((left - images).std()) < 1e-3 * float(images.std())
        before = noisy.images / noisy.images.mean((1, 2), keepdim=True) - images
        assert float((quiet - images).square().mean()) < 0.5 * float(before.square().mean())

    def test_blank_of_all_but_noise_nothing_is_left(self):
        generator = torch.Generator().manual_seed(2)
        noise = imaging.add_poisson_noise(torch.ones(3, SIZE, SIZE), DOSE, (FINE,) * 2, generator)
        record = records.images(noise.numpy(), defocus=DEFOCUS, sampling=FINE, energy=ENERGY)
        series = Simulated()
        quiet = read_series(record, series.lens, dose=DOSE).quiet()[0]
        # Of a ring of noise some is above the mean and is kept.
        assert float(quiet.std()) < 0.4 * float(noise.std())


class TestSeries:
    def test_the_unit_of_the_intensity_does_not_matter(self, series, iterated):
        again = exit_wave.retrieve(
            series.record(scale=870.0),
            method="gerchberg-saxton",
            register=False,
            iterations=60,
            **KNOWN,
            **FAULTS,
        )
        np.testing.assert_allclose(again["wave"], iterated["wave"], atol=1e-4)
        np.testing.assert_allclose(again["residual"], iterated["residual"], rtol=1e-4)
        np.testing.assert_allclose(again["noise"], iterated["noise"], rtol=1e-4)

    def test_vacuum(self, series):
        """By default the mean of each image; else a number for all."""
        scaled = series.record()
        scaled["intensity"][1] *= 2
        lens = Lens(1.0, 1.0, torch.zeros(0))
        each = read_series(scaled, lens)
        torch.testing.assert_close(each.images.mean((1, 2)), torch.ones(3), atol=1e-5, rtol=0)
        assert float(each.exposure[1]) == pytest.approx(2, rel=0.01)
        given = read_series(scaled, lens, vacuum=0.5)
        torch.testing.assert_close(given.images, 2 * torch.as_tensor(scaled["intensity"].values).float())

    def test_detector_and_dose(self, series, result):
        detector = (-0.3, 0.15, 1.0)
        seen = Simulated(detector=detector)
        for dose in (DOSE, None):
            found = retrieve(seen, mtf=detector, dose=dose)
            # Half as much error again is left for what the detector cuts off.
            assert series.error(found) < 1.5 * series.error(result)
            np.testing.assert_allclose(found["residual"], found["noise"], rtol=0.1)
        ignored = retrieve(seen)
        assert series.error(ignored) > 2 * series.error(found)

    def test_noise_is_that_of_the_electrons(self, result, series):
        expected = 1 / math.sqrt(DOSE * FINE**2) / series.images.std((1, 2)).numpy()
        # The noise of six thousand pixels is known to some hundredths.
        np.testing.assert_allclose(result["noise"], expected, rtol=0.1)
        told = retrieve(series, dose=DOSE, iterations=5)
        np.testing.assert_allclose(told["noise"], expected, rtol=0.01)

    def test_common_field(self):
        lens = Lens(
            ENERGY, 0.5, torch.zeros(3), shift=torch.tensor([[0, 0], [1.2, -0.6], [-0.1, 0.9]]).double()
        )
        images = torch.rand(3, 40, 50)
        given = WaveSeries(images, torch.arange(1, 4), torch.ones(3), lens)
        part, corner = given.common()
        # Of displacements by 2.4, -1.2 and -0.2, 1.8 pixels; half a pixel is let go.
        assert corner == (0, 1)
        assert part.shape == (38, 47)
        assert part.lens.shift is None
        torch.testing.assert_close(part.images[0], images[0, :38, 1:48])

    @pytest.mark.parametrize(
        ("change", "named"),
        [
            (lambda r: r["intensity"].__setitem__(1, 5.0), r"image 2 at \+7 nm is blank"),
            (lambda r: r["intensity"].__setitem__(0, -r["intensity"][0]), r"image 1 at \+2 nm is blank"),
            (lambda r: r["intensity"].__setitem__((1, 2, 3), np.nan), "not finite"),
        ],
    )
    def test_images_of_no_use(self, series, change, named):
        record = series.record()
        change(record)
        with pytest.raises(InputError, match=named):
            exit_wave.retrieve(record)

    def test_records_of_no_use(self, series):
        images = series.images.numpy()
        same = records.images(images, defocus=[50.0] * 3, sampling=FINE, energy=ENERGY)
        with pytest.raises(InputError, match=r"all 3 defoci are \+5 nm"):
            exit_wave.retrieve(same)
        oblong = records.images(images, defocus=DEFOCUS, sampling=(0.1, 0.12), energy=ENERGY)
        with pytest.raises(InputError, match=r"pixels of 0.1 x 0.12 Å \(y, x\): resample"):
            exit_wave.retrieve(oblong)
        small = records.images(images[:, :8], defocus=DEFOCUS, sampling=FINE, energy=ENERGY)
        with pytest.raises(InputError, match=r"\(8, 80\) pixels: give at least 16"):
            exit_wave.retrieve(small)


SHIFT = ((0.0, 0.0), (1.1, -0.7), (-0.63, 0.93))


@pytest.fixture(scope="module")
def moved():
    return Simulated(shift=SHIFT)


class TestDisplacements:
    def test_gradient_mends_them(self, moved, series, result):
        found = retrieve(moved, register=True)
        assert 2 * math.pi * np.abs(found["shift"] - np.array(SHIFT)).max() < QUARTER
        # A fit of six numbers more.
        assert moved.error(found) < 1.5 * series.error(result)

    def test_iteration_uses_what_is_common(self, moved, series, iterated):
        found = retrieve(moved, register=True, method="gerchberg-saxton", **FAULTS)
        assert 2 * math.pi * np.abs(found["shift"] - np.array(SHIFT)).max() < QUARTER
        assert found["wave"].shape == (2, SIZE - 14, SIZE - 14)
        assert (float(found["y"][0]), float(found["x"][0])) == pytest.approx((5 * FINE, 6 * FINE))
        # The flake is a larger share of a smaller field; what is cut off its fringes is the price.
        assert moved.error(found) < 1.5 * series.error(iterated)
        without = retrieve(moved, method="gerchberg-saxton", **FAULTS)
        assert moved.error(without) > 2 * moved.error(found)

    def test_network(self, moved):
        field = moved.wave[5 : SIZE - 9, 6 : SIZE - 8]
        perfect = Perfect(field)
        found = exit_wave.retrieve(
            moved.record(),
            method="network",
            network=perfect,
            iterations=30,
            spherical_aberration=0.0,
            **KNOWN,
        )
        assert perfect.given.shape[-2:] == (96, 96)
        assert moved.error(found) < 1e-3
        assert 2 * math.pi * np.abs(found["shift"] - np.array(SHIFT)).max() < QUARTER

    def test_a_doubt_is_told(self, series, monkeypatch):
        doubtful = Alignment(torch.zeros(3, 2, dtype=torch.float64), {2: (3.14, -0.04)}, 1.0)
        monkeypatch.setattr(exit_wave, "align", lambda *_, **__: doubtful)
        told = []
        found = exit_wave.retrieve(
            series.record(), method="gerchberg-saxton", iterations=2, warn=told.append, **KNOWN, **FAULTS
        )
        assert told == [found.attrs["warning"]]
        assert "the displacement of image 3 may be off by (3.1, -0.0) Å, for the lattice repeats" in told[0]


class TestFree:
    def test_everything(self):
        simulated = Simulated(spherical_aberration=1e4)
        found = retrieve(simulated, free=list(FREE), iterations=100)
        assert found["retrieved_defocus"].values == pytest.approx(DEFOCUS, abs=5)
        # The phase that it leaves at detail of 1 Å.
        off = 0.5 * math.pi * LENGTH**3 * abs(float(found["spherical_aberration"]) - 1e4)
        assert off < QUARTER
        assert {"threefold", "focal_spread", "blur"} <= set(found.data_vars)
        lines = waves.report(found)
        for name in set(FREE) - {"shift"}:
            assert any(line.startswith(f"retrieved {name.replace('_', ' ')}: ") for line in lines), name

    def test_what_is_free(self):
        options = exit_wave.Options
        assert options().freed(3) == ["astigmatism", "coma", "shift"]
        assert options(register=False, refine_defocus=True).freed(3) == ["astigmatism", "coma", "defocus"]
        assert options(refine_defocus=True, free=["blur", "shift"]).freed(1) == ["blur"]
        assert options(method="gerchberg-saxton").freed(3) == []
        assert options(method="network", network=abs).freed(3) == ["astigmatism", "coma"]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"method": "magic"}, "unknown method 'magic': use one of gradient, gerchberg-saxton, network"),
            ({"method": "gerchberg-saxton", "planes": 2}, "gerchberg-saxton takes no planes"),
            ({"method": "gerchberg-saxton", "weight": 2.0}, "gerchberg-saxton takes no weight"),
            ({"method": "gerchberg-saxton", "free": ["blur"]}, "gerchberg-saxton takes no free"),
            ({"method": "gerchberg-saxton", "refine_defocus": True}, "takes no refine_defocus"),
            ({"method": "network", "network": abs, "margin": 8}, "network takes no margin"),
            ({"network": abs}, "gradient takes no network"),
            ({"doubt": 0.3}, "gradient takes no doubt"),
            ({"method": "network"}, "has no network"),
            ({"vacuum": 0.0}, "vacuum 0.0"),
            ({"dose": math.nan}, "dose nan"),
            ({"weight": -1.0}, "weight -1.0"),
            ({"planes": 0}, "planes 0 is below 1"),
            ({"margin": -1}, "margin -1 is below 0"),
            ({"iterations": 0}, "iterations 0"),
            ({"focal_spread": -1.0}, "focal_spread -1.0 Å"),
            ({"blur": math.inf}, "blur inf"),
            ({"spherical_aberration": math.nan}, "spherical_aberration nan"),
            ({"astigmatism": (1.0,)}, "give 2 finite numbers"),
            ({"coma": (1.0, math.nan)}, "give 2 finite numbers"),
            ({"mtf": (1.0, 2.0)}, "give 3 finite numbers"),
            ({"free": ["magic"]}, "cannot retrieve 'magic'"),
        ],
    )
    def test_options_out_of_range(self, options, message):
        with pytest.raises(InputError, match=message) as told:
            exit_wave.Options(**options)
        assert "\n" not in str(told.value)


class TestNetworks:
    LENS = Lens(ENERGY, 0.105, torch.tensor(DEFOCUS, dtype=torch.float64))
    TRAINED = {"energy": 50e3, "least_pixel": 0.1, "greatest_pixel": 0.11, "span": 100.0}  # noqa: RUF012

    def test_what_it_was_trained_for(self):
        assert learned.doubts(self.TRAINED, self.LENS) == []
        assert learned.doubts({}, self.LENS) == []

    @pytest.mark.parametrize(
        ("changed", "named"),
        [
            ({"sampling": 0.2}, "pixels of 0.2 Å, but the network was trained with 0.1 to 0.11 Å"),
            ({"energy": 80e3}, "80 keV, but the network was trained with 50 keV"),
            ({"defocus": torch.tensor([0.0, 50.0])}, "5 nm from the least defocus .* trained with 10 nm"),
        ],
    )
    def test_what_it_was_not_trained_for(self, changed, named):
        [told] = learned.doubts(self.TRAINED, replace(self.LENS, **changed))
        assert re.search(named, told)

    @pytest.mark.parametrize(
        ("network", "named"),
        [
            (FusionNet(2, width=4, depth=2), "3 images, but the network takes 2"),
            (FusionNet(3, 1, width=4, depth=2), "1 outputs makes no wave"),
            (abs, "makes .* not the two parts"),
            (lambda given: given[:, :2] * math.nan, "not the two parts of a finite wave"),
            (lambda given: torch.ones(2, 3) @ given, "cannot take images of shape"),
        ],
    )
    def test_networks_of_no_use(self, series, network, named):
        with pytest.raises(InputError, match=named) as told:
            retrieve(series, method="network", network=network)
        assert "\n" not in str(told.value)


class TestRecord:
    def test_everything_has_units_and_names_and_can_be_saved(self, result, tmp_path):
        again = records.load(records.save(result, tmp_path / "x.nc"), "wave")
        expected = {"image", "residual", "noise", "exposure", "shift", "evaluations", "astigmatism", "coma"}
        assert expected | {"atoms", "spacing", "beyond"} <= set(again.data_vars)
        assert again["shift"].dims == ("defocus", "axis")
        np.testing.assert_array_equal(again["wave"], result["wave"])
        assert float(again["x"][1]) == pytest.approx(FINE)

    def test_unexplained(self, result):
        noise = result["noise"].values
        worse = result.assign(residual=("defocus", np.sqrt(noise**2 + [0.0, 0.05, 0.15])))
        assert exit_wave.unexplained(worse).tolist() == [False, False, True]
        assert sum("is not explained" in line for line in waves.report(worse)) == 1

    def test_steps_for_a_progress_bar(self, series):
        seen = []
        found = retrieve(series, method="gerchberg-saxton", iterations=7, observe=lambda i, _: seen.append(i))
        assert seen == list(range(8))
        assert int(found["evaluations"]) == exit_wave.Options(iterations=7).steps == 7
        assert exit_wave.Options().steps == 200


@pytest.fixture
def call(tmp_path, monkeypatch, exitwave, series):
    """Run the command on the series."""
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", (870 * series.images).numpy())

    def run(*arguments, files=("x.npy",), defocus="2nm,7nm,12nm", pixel="12pm"):
        given = [f"--defocus={defocus}", "--energy", "50keV", "--pixel", pixel, "-o", "out.nc"]
        return exitwave("retrieve", "focal-series", *files, *given, "--focal-spread", "0.7nm", *arguments)

    return run


class TestCommand:
    def test_gradient_is_the_default(self, call, series, tmp_path):
        given = ["--margin", 0, "--iterations", 60, "--no-register", "--blur", "10pm", "--dose", 1e4]
        status, output, errors = call(*given)
        assert (status, errors) == (0, "")
        lines = output.splitlines()
        assert lines[:2] == ["out.nc", "out.png"]
        assert " ".join(lines[2].split()) == "image defocus residual noise alone shift y, x (Å)"
        assert [line.split()[:3] for line in lines[3:6]] == [
            ["1", "+2", "nm"], ["2", "+7", "nm"], ["3", "+12", "nm"],
        ]  # fmt: skip
        assert lines[6].startswith("retrieved astigmatism: C12a +1.")
        record = records.load("out.nc", "wave")
        assert series.error(record) < 0.1
        used = records.provenance_of(record)["parameters"]
        assert (used["method"], used["files"], used["dose"]) == ("gradient", ["x.npy"], 1e4)
        png = (tmp_path / "out.png").read_bytes()
        assert png.startswith(b"\x89PNG")
        assert str(tmp_path).encode() not in png
        assert sorted(path.name for path in tmp_path.iterdir()) == ["out.nc", "out.png", "x.npy"]

    def test_gerchberg_saxton_from_several_files(self, call, series, iterated):
        for i, image in enumerate(series.images):
            np.save(f"{i}.npy", image.numpy())
        status, _, errors = call(
            "--method", "gerchberg-saxton", "--astigmatism", "1.2nm -0.6nm", "--coma", "150,200",
            "--iterations", 60, "--no-register", "--no-preview", files=("0.npy", "1.npy", "2.npy"),
        )  # fmt: skip
        assert (status, errors) == (0, "")
        np.testing.assert_allclose(records.load("out.nc")["wave"], iterated["wave"], atol=1e-4)

    @pytest.fixture
    def weights(self, tmp_path):
        network = FusionNet(3, width=4, depth=2)
        about = {"provenance": {"parameters": {"least_pixel": 0.1, "greatest_pixel": 0.11, "energy": 50e3}}}
        return save_weights(tmp_path / "weights.safetensors", network, about)

    def test_network(self, call, series, weights):
        """From weights as training leaves them, and from released ones; outside its pixels with a warning."""
        given = ["--method", "network", "--no-register", "--no-preview", "--iterations", 2]
        released = write_released(weights, weights.with_name("released.safetensors"), {})
        found = []
        for file in (weights, released):
            status, _, errors = call(*given, "--weights", file)
            assert status == 0
            assert errors.startswith(
                "exitwave: warning: pixels of 0.12 Å, but the network was trained with 0.1"
            )
            found.append(records.from_parts(records.load("out.nc")["wave"]))
        network, _ = load_network(weights)
        over = series.images / series.images.mean((1, 2), keepdim=True)
        expected = learned.predict(network, over)
        np.testing.assert_allclose(found[0], expected, atol=1e-2)
        # In 8 bits.
        np.testing.assert_allclose(found[1], found[0], atol=0.1)
        assert (
            records.provenance_of(records.load("out.nc"))["parameters"]["weights"] == "released.safetensors"
        )

    def test_unit_off_by_ten(self, call):
        given = ["--no-register", "--no-preview", "--iterations", 2, "--method", "gerchberg-saxton"]
        status, _, errors = call(*given, defocus="2,7,12")
        assert status == 0
        [line] = errors.splitlines()
        assert line.startswith(
            "exitwave: warning: defocus +1.2 nm looks off by a factor of ten, +12 nm explains"
        )
        assert records.load("out.nc").attrs["warning"] in line

    def test_wrong_order(self, call):
        given = ["--no-preview", "--iterations", 2, "--method", "gerchberg-saxton"]
        status, _, errors = call(*given, defocus="7nm,2nm,12nm")
        assert status == 0
        warning = (
            "exitwave: warning: atoms explain the images better with image 1 at +2 nm, image 2 at +7 nm:"
        )
        assert errors.splitlines()[0].startswith(warning)
        assert "check the order of the defoci, and of the files" in records.load("out.nc").attrs["warning"]

    @pytest.mark.parametrize(
        ("given", "named"),
        [
            (["--method", "magic"], "unknown method 'magic'"),
            (["--method", "network"], "give one, --weights FILE"),
            (["--method", "network", "--weights", "x.npy"], "x.npy: not a readable safetensors file"),
            (["--weights", "x.npy"], "x.npy: not a readable"),
            (["--free", "focal_spread", "--focal-spread", "0"], "--focal-spread 0 cannot be fitted"),
            (["--free", "magic"], "cannot retrieve 'magic'"),
            (["--method", "gerchberg-saxton", "--margin", "4"], "takes no margin"),
            (["--coma", "1nm"], "coma (10.0,): give 2 finite numbers"),
            (["--coma", "1nm 2s"], "coma '2s'"),
            (["--mtf", "1 2"], "give 3 finite numbers"),
            (["--mtf", "a b c"], "mtf 'a b c' is not numbers"),
            (["--mtf", "0 -1 1"], "c2"),
            (["--dose", "-1"], "dose -1.0"),
            (["--blur", "10eV"], "blur '10eV'"),
            (["--defocus", "2nm,7nm"], "3 images but 2 defoci"),
            (["--defocus", "7nm,7nm,7nm"], "all 3 defoci are +7 nm"),
            (["--energy", "0"], "energy"),
            (["--pixel", "0"], "pixel size"),
        ],
    )
    def test_refusals(self, call, tmp_path, given, named):
        status, output, errors = call(*given)
        assert (status, output) == (2, "")
        [line] = errors.splitlines()
        assert line.startswith("exitwave: ")
        assert named in line
        assert [path.name for path in tmp_path.iterdir()] == ["x.npy"]

    def test_weights_of_another_network(self, call, tmp_path):
        save_weights(tmp_path / "two.safetensors", FusionNet(2, width=4, depth=2), {})
        status, _, errors = call("--method", "network", "--weights", "two.safetensors")
        assert status == 2
        assert "3 images, but the network takes 2" in errors
        write_tensors(tmp_path / "odd.safetensors", {}, {"network": "Magic", "architecture": {}})
        status, _, errors = call("--method", "network", "--weights", "odd.safetensors")
        assert status == 2
        assert errors.startswith("exitwave: odd.safetensors: no network of this version ('Magic')")

    def test_what_the_files_do_not_say(self, exitwave, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        np.save("x.npy", np.ones((3, 16, 16)))
        status, _, errors = exitwave("retrieve", "focal-series", "x.npy", "-o", "out.nc")
        assert status == 2
        for option in ("--pixel", "--energy", "--defocus"):
            assert option in errors


class TestPreview:
    def test_what_it_shows(self, result):
        figure = wave_preview.draw(result)
        amplitude, phase, plane, residuals = figure.axes[:4]
        wave = records.from_parts(result["wave"])
        np.testing.assert_array_equal(amplitude.images[0].get_array(), np.abs(wave))
        np.testing.assert_array_equal(phase.images[0].get_array(), np.angle(wave))
        assert phase.get_xlabel() == "x (Å)"
        assert phase.get_ylim() == pytest.approx((SIZE * FINE - FINE / 2, -FINE / 2))  # rows downwards
        counted = np.nansum(np.ma.filled(plane.collections[0].get_array(), 0))
        assert counted == wave.size
        assert plane.get_xlabel() == "real part (1)"
        widths = [bar.get_width() for bar in residuals.patches]
        np.testing.assert_allclose(widths, result["residual"])

    def test_a_phase_that_turns_has_a_cyclic_map_of_a_whole_turn(self, result):
        still = wave_preview.draw(result).axes[1].images[0]
        assert still.get_cmap().name == "viridis"
        wave = records.from_parts(result["wave"]) ** 8
        turning = result.assign(wave=(("part", "y", "x"), records.to_parts(wave)))
        shown = wave_preview.draw(turning).axes[1].images[0]
        assert shown.get_cmap().name == "twilight"
        assert shown.get_clim() == pytest.approx((-math.pi, math.pi))

    def test_a_large_field_in_nm(self, result):
        large = result.assign_coords(x=30 * result["x"], y=30 * result["y"])
        assert wave_preview.draw(large).axes[0].get_xlabel() == "x (nm)"
