"""``exitwave retrieve lorentz`` and the layers below it, on simulated series of known phase and shift."""

import math

import numpy as np
import pytest
import torch

from exitwave import metrics, records
from exitwave.cli import methods, preview
from exitwave.cli.pictures import save_figure
from exitwave.errors import InputError
from exitwave.retrieve import lorentz
from exitwave.retrieve.plausibility import better_factor, check_defocus
from exitwave.retrieve.registration import register, shifted
from exitwave.retrieve.series import denoised, read_series
from exitwave.simulate import imaging
from exitwave.simulate import lorentz as physics
from exitwave.simulate.instrument import Instrument
from exitwave.specimens.magnets import film_of_bars, ten_bars
from exitwave.units import length_text

ENERGY, STEP, MM = 200e3, 100.0, 1e7
CONVERGENCE = 1e-5


class Simulated:
    """Ten bars of Permalloy, 10 nm thick, pixels of 10 nm."""

    def __init__(self, defocus=(-0.15, 0.0, 0.15), shift=None, noise=0.05, n=64, seed=0, dose=None):
        film = film_of_bars(
            ten_bars(n * STEP, np.random.default_rng(seed)), (n, n), (STEP, STEP), thickness=100.0
        )
        wave = physics.exit_wave(film, energy=ENERGY, inner_potential=20.0, absorption_length=500.0)
        self.truth = physics.magnetic_phase(film) + physics.electrostatic_phase(
            film, energy=ENERGY, inner_potential=20.0
        )
        self.defocus = [d * MM for d in defocus]
        self.shift = torch.zeros(len(defocus), 2) if shift is None else torch.as_tensor(shift)
        self.instrument = Instrument(
            ENERGY, (STEP, STEP), torch.tensor(self.defocus, dtype=torch.float64), convergence=CONVERGENCE,
            shift=self.shift.double() * STEP,
        )  # fmt: skip
        clean = imaging.images(wave, self.instrument.transfer((n, n), dtype=torch.complex128))
        generator = torch.Generator().manual_seed(seed)
        if dose is None:
            self.images = imaging.add_gaussian_noise(clean, noise, generator)
        else:
            self.images = imaging.add_poisson_noise(clean, dose, (STEP, STEP), generator)

    def record(self, factor=1.0, scale=1.0):
        defocus = [factor * d for d in self.defocus]
        return records.images((scale * self.images).numpy(), defocus=defocus, sampling=STEP, energy=ENERGY)

    def correlation(self, result):
        return float(metrics.correlation(torch.as_tensor(result["phase"].values).double(), self.truth))


@pytest.fixture(scope="module")
def series():
    return Simulated(noise=0.02)


@pytest.fixture(scope="module")
def result(series):
    return retrieve(series, weight=10.0)


def retrieve(simulated, **options):
    chosen = {"convergence": CONVERGENCE, "register": False} | options
    return lorentz.retrieve(simulated.record(), **chosen)


class TestMethods:
    @pytest.mark.parametrize(("method", "least"), [("gradient", 0.95), ("tie", 0.9), ("adam", 0.9)])
    def test_phase_with_its_sign(self, series, method, least):
        options = {"method": method, "convergence": CONVERGENCE, "iterations": 60, "rate": 0.05}
        result = lorentz.retrieve(series.record(scale=870.0), **options)
        records.validate(result, "phase")
        assert series.correlation(result) > least
        turned = lorentz.retrieve(series.record(factor=-1.0), **options)
        assert series.correlation(turned) < -0.5

    def test_gradient_explains_what_tie_does_not(self):
        far = Simulated((-0.8, 0.0, 0.8))
        by_tie, by_gradient = retrieve(far, method="tie"), retrieve(far)
        assert lorentz.unexplained(by_tie).all()
        assert not lorentz.unexplained(by_gradient).any()
        assert far.correlation(by_gradient) > max(0.9, far.correlation(by_tie))

    def test_the_unit_of_the_intensity_does_not_matter(self, series):
        first = retrieve(series, method="tie")
        second = lorentz.retrieve(
            series.record(scale=870.0), method="tie", register=False, convergence=CONVERGENCE
        )
        np.testing.assert_allclose(second["phase"], first["phase"], atol=1e-4)
        np.testing.assert_allclose(second["residual"], first["residual"], rtol=1e-4)

    def test_sitie_takes_one_image(self):
        # A film that fills the field and absorbs evenly: the magnetic phase alone.
        full = Simulated((0.05,), noise=0.0)
        wave = torch.polar(torch.ones_like(full.truth), 0.2 * full.truth)
        image = imaging.images(wave, full.instrument.transfer((64, 64), dtype=torch.complex128))
        for sign in (1, -1):
            record = records.images(image.numpy(), defocus=[sign * 0.05 * MM], sampling=STEP, energy=ENERGY)
            result = lorentz.retrieve(record, method="sitie")
            assert sign * full.correlation(result) > 0.9
            assert result["residual"].shape == (1,)
        two = records.images(np.concatenate([image, image]), defocus=[1e6, 2e6], sampling=STEP, energy=ENERGY)
        with pytest.raises(InputError, match="one defocused image, which sitie takes"):
            lorentz.retrieve(two, method="sitie")
        with pytest.raises(InputError, match=r"need one image in focus .*sitie"):
            lorentz.retrieve(two)

    def test_poisson(self):
        counted = Simulated((-0.4, 0.0, 0.4), dose=0.01)  # 100 electrons a pixel
        result = retrieve(counted, likelihood="poisson")
        assert counted.correlation(result) > 0.9
        assert not lorentz.unexplained(result).any()

    def test_free_parameters(self):
        simulated = Simulated((-0.4, 0.0, 0.4), noise=0.02)
        record = simulated.record()
        wrong = record.assign_coords(defocus=record["defocus"] * [1.0, 1.0, 1.1])
        wrong["defocus"].attrs = record["defocus"].attrs
        result = lorentz.retrieve(
            wrong, free=["amplitude", "defocus", "convergence"], convergence=CONVERGENCE, weight=5.0,
            register=False,
        )  # fmt: skip
        found = result["retrieved_defocus"].values / MM
        assert result["image"].values.tolist() == [2, 1, 3]  # the one in focus is fitted, too, and is first
        # The sum of the two is told by the images; 0.4 and 0.44 were given.
        assert found[0] == 0
        assert abs(found[2] / -found[1] - 1) < 0.05
        assert 0 < float(result["convergence"]) < 1e-4
        assert result["amplitude"].shape == (64, 64)
        assert any("retrieved defocus" in line for line in methods.report(result))

    def test_exposures(self, series):
        record = series.record(scale=100.0)
        record["intensity"][2] *= 3
        result = lorentz.retrieve(record, method="tie", register=False, convergence=CONVERGENCE)
        assert result["exposure"].values == pytest.approx([1, 3], rel=0.01)
        np.testing.assert_allclose(result["phase"], retrieve(series, method="tie")["phase"], atol=0.1)
        assert any("image 3 at +0.15 mm has 3 times" in line for line in methods.report(result))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"method": "magic"}, "unknown method 'magic'"),
            ({"rate": math.nan}, "rate nan rad"),
            ({"weight": -1}, "weight -1 is not"),
            ({"cutoff": -1}, "cutoff -1"),
            ({"convergence": math.inf}, "convergence inf"),
            ({"spherical_aberration": math.nan}, "spherical_aberration nan"),
            ({"iterations": 0}, "iterations 0"),
            ({"likelihood": "magic"}, "likelihood 'magic'"),
            ({"free": ["magic"]}, "cannot retrieve 'magic'"),
            ({"free": ["convergence"]}, "free convergence varies by a factor"),
            ({"free": ["shift"], "method": "tie"}, "method tie retrieves the phase only"),
        ],
    )
    def test_options_out_of_range(self, options, message):
        with pytest.raises(InputError, match=message):
            lorentz.Options(**options)

    def test_steps_bound_the_evaluations(self, series):
        seen = []
        result = lorentz.retrieve(
            series.record(), register=False, weight=10.0, observe=lambda step, _: seen.append(step)
        )
        assert float(result["weight"]) == 10.0
        assert seen == list(range(1, len(seen) + 1))
        assert len(seen) <= lorentz.Options(weight=10.0).steps == 60

    def test_a_dark_image(self, series):
        record = series.record()
        record["intensity"][2] = 0
        with pytest.raises(InputError, match="image 3 has no positive mean"):
            lorentz.retrieve(record)


class TestInduction:
    def test_sign_is_that_of_the_forward_model(self):
        """B along +y deflects towards +x: d(phi)/dx = + e B_y t / hbar."""
        n = 256
        bar = film_of_bars(
            ten_bars(n * STEP, np.random.default_rng(0))[:1], (n, n), (STEP, STEP), thickness=100.0
        )
        phase = physics.magnetic_phase(bar).numpy()
        x, y = lorentz.induction(phase, (STEP, STEP))
        my = bar.magnetisation[1].numpy()
        [one] = bar.bars
        inside = bar.coverage.numpy() == 1
        # mu_0 M = 1.005 T over 10 nm, less the share that returns through a bar, which is flat for the beam:
        # the demagnetising factor w / (w + l) of an elliptic cylinder.
        expected = 10.053 * (1 - one.width / (one.width + one.length))
        assert np.median((y * np.sign(my))[inside]) == pytest.approx(expected, rel=0.05)
        assert abs(np.median(x[inside])) < 0.5

    def test_of_a_ramp(self):
        y, x = np.mgrid[:8, :8] * 10.0  # nm
        ramp = 0.01 * x - 0.02 * y
        bx, by = lorentz.induction(ramp, (100.0, 100.0))
        np.testing.assert_allclose(by, 6.582119569)
        np.testing.assert_allclose(bx, 13.164239138)


class TestRecord:
    def test_everything_has_units_and_names_and_can_be_saved(self, series, tmp_path):
        result = retrieve(series, weight=10.0)
        assert {"induction", "shift", "residual", "noise", "evaluations", "weight"} <= set(result.data_vars)
        assert result["induction"].dims == ("component", "y", "x")
        assert result["shift"].dims == ("defocus", "axis")
        assert result["induction"].attrs["units"] == "T nm"
        assert "electrostatic" in result["induction"].attrs["long_name"]
        again = records.load(records.save(result, tmp_path / "x.nc"), "phase")
        assert again["component"].values.tolist() == ["x", "y"]
        assert int(again["evaluations"]) > 10

    def test_noise_is_what_noise_alone_gives(self):
        simulated = Simulated((-0.15, 0.0, 0.15), noise=0.1)
        result = retrieve(simulated, weight=10.0)
        rms = simulated.images[[0, 2]].square().mean((1, 2)).sqrt().numpy()
        np.testing.assert_allclose(result["noise"], 0.1 / rms, rtol=0.15)

    def test_denoising(self):
        clean = Simulated(noise=0.0).images[1].float()
        assert torch.equal(denoised(clean), clean.clamp_min(1e-3 * float(clean.mean())))
        noisy = Simulated(noise=0.05).images[1].float()
        assert float((denoised(noisy) - clean).std()) < 0.6 * float((noisy - clean).std())


class TestRegistration:
    @pytest.mark.parametrize("defocus", [(0.0, -0.15, 0.15), (-0.4, 0.0, 0.4), (-0.8, -0.4, 0.0, 0.4, 0.8)])
    def test_displacements_are_found_within_a_tenth_of_a_pixel(self, defocus):
        """One pixel rms is what TIE at the resolution of the images bears; here the fit does far better."""
        errors = []
        for seed in range(2):
            true = np.random.default_rng(seed).uniform(-6, 6, (len(defocus), 2))
            true = np.round(true) if seed == 0 else true
            true[[d == 0 for d in defocus]] = 0
            simulated = Simulated(defocus, true, n=128, seed=seed)
            found = register(simulated.images.float(), simulated.instrument).numpy()
            errors.append(((found - true) ** 2).sum(1).mean())
        assert math.sqrt(np.mean(errors)) < 0.1

    def test_reversed_contrast_far_from_focus(self):
        true = np.array([[0, 0], [-3.4, 2.7], [4.6, 1.2]])
        simulated = Simulated((0.0, -1.6, 1.6), true, n=128, seed=1)
        found = register(simulated.images.float(), simulated.instrument).numpy()
        assert math.sqrt(((found - true) ** 2).sum(1).mean()) < 1.0

    def test_images_larger_than_the_search_and_two_in_focus(self):
        true = np.array([[0, 0], [12.0, -9.0], [3.0, -2.0], [-6.0, 7.0]])
        simulated = Simulated((0.0, -0.4, 0.0, 0.4), true, n=320, seed=1)
        found = register(simulated.images.float(), simulated.instrument).numpy()
        assert math.sqrt(((found - true) ** 2).sum(1).mean()) < 0.5

    def test_images_that_are_aligned_and_show_no_amplitude_stay(self):
        """Without contrast in focus, displacing all images and the phase together changes nothing."""
        axis = (torch.arange(64, dtype=torch.float64) - 32) * STEP
        phase = 0.3 * torch.exp(-(axis[:, None] ** 2 + axis**2) / (2 * 800.0**2))
        beam = Instrument(ENERGY, (STEP, STEP), torch.tensor([0.0, 5e6, -5e6], dtype=torch.float64))
        images = imaging.images(
            torch.polar(torch.ones_like(phase), phase), beam.transfer((64, 64), dtype=torch.complex128)
        )
        assert not register(images.float(), beam).any()

    def test_tie_gets_images_shifted_back(self):
        shift = np.array([[3.0, -2.0], [0, 0], [-1.5, 4.5]])
        moved, still = Simulated((-0.4, 0.0, 0.4), shift, n=64), Simulated((-0.4, 0.0, 0.4), n=64)
        result = lorentz.retrieve(moved.record(), method="tie", convergence=CONVERGENCE)
        np.testing.assert_allclose(result["shift"] / STEP, shift[[0, 2]], atol=0.3)
        without = lorentz.retrieve(moved.record(), method="tie", register=False)
        expected = still.correlation(retrieve(still, method="tie"))
        assert moved.correlation(result) > expected - 0.03
        assert moved.correlation(without) < moved.correlation(result) - 0.03

    def test_shifted_by_whole_pixels(self):
        shift = np.array([[2.0, -3.0], [0, 0], [1.25, 4.5]])
        still = Simulated(noise=0)
        whole = shifted(still.images, torch.as_tensor(shift))
        torch.testing.assert_close(whole[0], still.images[0].roll((2, -3), (0, 1)))
        back = shifted(whole, -torch.as_tensor(shift))
        torch.testing.assert_close(back[0], still.images[0])

    def test_shifted_by_fractions_of_a_pixel(self):
        y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")

        def spot(at_y, at_x):
            return torch.exp(-((y - at_y) ** 2 + (x - at_x) ** 2) / 18)

        moved = shifted(spot(30, 33)[None], torch.tensor([[1.25, -4.5]]))
        torch.testing.assert_close(moved[0], spot(31.25, 28.5), atol=1e-5, rtol=0)

    def test_too_far(self):
        simulated = Simulated((0.0, 0.4), [[0, 0], [24.0, 0.0]], n=64)
        message = r"image 2 at \+0.4 mm is displaced by \(2\d, \S+\) of \(64, 64\) pixels.*register=False"
        with pytest.raises(InputError, match=message):
            lorentz.retrieve(simulated.record(), method="tie")


class TestDefocus:
    @pytest.mark.parametrize("millimetres", [0.15, 0.4, 1.6])
    @pytest.mark.parametrize("noise", [0.0, 0.2])
    def test_the_images_know_the_unit(self, millimetres, noise):
        simulated = Simulated((-millimetres, 0.0, millimetres), n=96, noise=noise, seed=2)
        assert check_defocus(simulated.record()) is None
        for factor in (1e3, 1e-3):
            record = simulated.record(factor)
            assert better_factor(read_series(record)) == pytest.approx(1 / factor)
            said = check_defocus(record)
            assert said is not None
            assert "\n" not in said

    def test_displaced_images_too(self):
        simulated = Simulated((-0.4, 0.0, 0.4), [[3.0, -5.0], [0, 0], [4.4, 2.0]], n=96)
        assert check_defocus(simulated.record()) is None
        said = check_defocus(simulated.record(1e-3))
        assert "defocus -0.4 µm looks off" in said or "defocus -400 nm" in said
        far = Simulated((-1.6, 0.0, 1.6), [[3.0, -5.0], [0, 0], [4.4, 2.0]], n=96)
        said = check_defocus(far.record(1e-3))
        assert "defocus -1.6 µm looks off by a factor of a thousand, -1.6 mm explains" in said

    @pytest.mark.parametrize(
        ("typed", "meant"),
        [
            (0.15, "did you mean 0.15 mm?"),
            (-150.0, "did you mean -150 µm?"),
            (1.5e9, "did you mean +0.15 mm?"),
        ],
    )
    def test_out_of_range(self, series, typed, meant):
        record = series.record().assign_coords(defocus=[-typed, 0.0, typed][::-1])
        said = check_defocus(record)
        assert meant in said
        assert "Lengths without a unit are in Å" in said

    def test_the_record_keeps_the_warning(self, series):
        told = []
        result = lorentz.retrieve(series.record(1e-3), method="tie", register=False, warn=told.append)
        assert told == [result.attrs["warning"]]
        assert "warning" not in lorentz.retrieve(series.record(), method="tie", register=False).attrs

    def test_lengths(self):
        given = [1.5e6, -8e6, 1e4, 55.0, 0.15, 0.0]
        assert [length_text(each) for each in given] == [
            "+0.15 mm", "-0.8 mm", "+1 µm", "+5.5 nm", "+0.15 Å", "0",
        ]  # fmt: skip


@pytest.fixture
def call(tmp_path, monkeypatch, exitwave, series):
    """Run the command on the series."""
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", (870 * series.images).numpy())

    def run(*arguments, defocus="-0.15mm,0,0.15mm"):
        given = ["x.npy", f"--defocus={defocus}", "--energy", "200keV", "--pixel", "10nm", "-o", "out.nc"]
        return exitwave("retrieve", "lorentz", *given, *arguments)

    return run


class TestCommand:
    def test_gradient_is_the_default(self, call, series, tmp_path):
        status, output, errors = call("--convergence", "10urad", "--iterations", 40)
        assert (status, errors) == (0, "")
        lines = output.splitlines()
        assert lines[:2] == ["out.nc", "out.png"]
        assert " ".join(lines[2].split()) == "image defocus residual noise alone shift y, x (nm)"
        assert [line.split()[:3] for line in lines[3:]] == [["1", "-0.15", "mm"], ["3", "+0.15", "mm"]]
        record = records.load("out.nc", "phase")
        assert series.correlation(record) > 0.95
        used = records.provenance_of(record)["parameters"]
        assert (used["method"], used["files"]) == ("gradient", ["x.npy"])
        assert used["convergence"] == pytest.approx(1e-5)
        png = (tmp_path / "out.png").read_bytes()
        assert png.startswith(b"\x89PNG")
        assert str(tmp_path).encode() not in png
        assert sorted(path.name for path in tmp_path.iterdir()) == ["out.nc", "out.png", "x.npy"]

    def test_images_that_are_not_explained(self, call):
        status, output, _ = call("--method", "tie", "--no-register", "--no-preview", defocus="-0.15mm,0,3mm")
        assert status == 0
        assert "image 3 at +3 mm is not explained: check its defocus, registration, exposure" in output
        assert "image 1 at" not in output.replace("image 1 at -0.15 mm is not explained", "")

    def test_unit_off_by_a_thousand(self, call, tmp_path):
        status, _, errors = call("--method", "tie", "--no-register", "--no-preview", defocus="-0.15,0,0.15")
        assert status == 0
        [line] = errors.splitlines()
        assert line.startswith("exitwave: warning: defocus")
        assert "-0.15 mm?" in line
        assert records.load("out.nc").attrs["warning"] in line
        assert not (tmp_path / "out.png").exists()

    @pytest.mark.parametrize(
        ("given", "named"),
        [
            (["--free", "magic"], "cannot retrieve 'magic'"),
            (["--free", "convergence"], "begin with --convergence 1e-5"),
            (["--likelihood", "magic"], "unknown likelihood 'magic'"),
            (["--convergence", "10nm"], "convergence '10nm'"),
            (["--method", "sitie"], "use tie or gradient"),
        ],
    )
    def test_refusals(self, call, tmp_path, given, named):
        if "sitie" in given:
            given = [*given, "--defocus=-1mm,0,1mm"]
        status, output, errors = call(*given)
        assert (status, output) == (2, "")
        [line] = errors.splitlines()
        assert named in line
        assert [path.name for path in tmp_path.iterdir()] == ["x.npy"]


class TestPreview:
    def test_whole_or_not_at_all(self, result, tmp_path, monkeypatch):
        path = tmp_path / "x.png"
        path.write_bytes(b"old")

        def half(self, target, **_):
            target.write_bytes(b"half")
            raise OSError("disk full")

        monkeypatch.setattr("matplotlib.figure.Figure.savefig", half)
        with pytest.raises(OSError, match="disk full"):
            save_figure(preview.draw(result), path)
        assert path.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [path]

    def test_what_it_shows(self, result):
        figure = preview.draw(result)
        phase, induction, residuals = figure.axes[:3]
        np.testing.assert_array_equal(phase.images[0].get_array(), result["phase"].values)
        assert phase.get_xlabel() == "x (nm)"
        assert phase.get_ylim() == pytest.approx((635.0, -5.0))  # rows downwards
        assert any(axes.get_ylabel() == "phase (rad)" for axes in figure.axes)
        assert len(induction.child_axes) == 1
        widths = [bar.get_width() for bar in residuals.patches]
        np.testing.assert_allclose(widths, result["residual"])

    def test_colours_are_directions(self):
        field = np.array([[[1.0, -1.0, 0.0, 0.5]], [[0.0, 0.0, 0.0, 0.0]]])
        red, cyan, black, half = preview.colours(field, 1.0)[0]
        np.testing.assert_allclose(red, [1, 0, 0])
        np.testing.assert_allclose(cyan, [0, 1, 1], atol=1e-12)
        np.testing.assert_allclose(black, 0)
        np.testing.assert_allclose(half, [0.5, 0, 0])

    def test_a_flat_phase(self, result):
        figure = preview.draw(result.assign(phase=result["phase"] * 0, induction=result["induction"] * 0))
        phase, induction = figure.axes[:2]
        assert not phase.images[0].get_array().any()
        assert not induction.collections  # no contour of a constant
