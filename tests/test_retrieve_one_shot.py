"""``exitwave retrieve one-shot`` and the layers below it, with networks that know the phase, or nothing."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from exitwave import records
from exitwave.cli import one_shot_preview, retrieving
from exitwave.cli.one_shot import report
from exitwave.errors import InputError
from exitwave.networks import flow
from exitwave.networks.unet import UNet
from exitwave.networks.weights import save_weights
from exitwave.papers.ede2020 import deployed
from exitwave.papers.ede2020.data import VOLTAGES
from exitwave.papers.ede2020.parameters import Parameters
from exitwave.retrieve import one_shot
from exitwave.retrieve.tiles import Tiles

pytestmark = pytest.mark.usefixtures("one_thread")

ENERGY, FINE, THICKNESS = 200e3, 0.2, 100.0
TRAINED = one_shot.Trained(
    energies=(80e3, 200e3, 300e3), thickness=(50.0, 1000.0), sampling=(0.129, 0.227), pixels=64, waves=1600,
    crystals=240, steps=2000, scope="multi", terms=3,
)  # fmt: skip
STEEP = 4.0  # rad for a modulus of the mean
ROUNDING = 1e-4  # of float32, some operations long


def moduli(shape, seed=0):
    return 0.2 + torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def record_of(image, **changed):
    return records.images(
        np.asarray(image)[None], **({"defocus": [0.0], "sampling": FINE, "energy": ENERGY} | changed)
    )


def components(phase):
    return torch.stack([phase.cos(), phase.sin()], 1)


class Oracle:
    """The phase of its waves follows the modulus; it adds a constant to each tile, which no one can know."""

    def __init__(self, seed=0):
        self.generator = torch.Generator().manual_seed(seed)

    def constants(self, count):
        return 2 * math.pi * torch.rand(count, 1, 1, generator=self.generator)

    def __call__(self, inputs, told):
        self.shape, self.told = inputs.shape, told
        return components(STEEP * inputs[:, 0] + self.constants(len(inputs)))


class Drawing(Oracle):
    """Draws phases that differ from the oracle's by the noise, in units of rad."""

    def __init__(self, deviation=0.2):
        super().__init__()
        self.deviation = deviation

    def __call__(self, start, inputs, told):
        return components(STEEP * inputs[:, 0] + self.deviation * start[:, 0] + self.constants(len(inputs)))


def retrieve(image, **options):
    chosen = {"network": Oracle(), "trained": TRAINED, "thickness": THICKNESS, "alternatives": 0} | options
    return one_shot.retrieve(record_of(image), **chosen)


def truth_of(modulus):
    """Return the wave of the oracle, root mean square 1, its mean positive."""
    wave = torch.polar(modulus / modulus.square().mean().sqrt(), STEEP * modulus / modulus.mean())
    return one_shot.in_gauge(wave).numpy()


class TestTiles:
    @given(
        shape=st.tuples(st.integers(16, 90), st.integers(16, 90)), pixels=st.sampled_from([16, 21, 64]),
        seed=st.integers(0, 99),
    )  # fmt: skip
    @settings(max_examples=25, deadline=None)
    def test_turned_tiles_are_put_together_again(self, shape, pixels, seed):
        """Whatever the constants; but for the constant of all."""
        generator = torch.Generator().manual_seed(seed)
        tiles = Tiles(shape, pixels)
        field = torch.polar(moduli(shape, seed), 2 * math.pi * moduli(shape, seed + 1))
        cut = tiles.cut(field)
        assert cut.shape == (len(tiles), pixels, pixels)
        constants = 2 * math.pi * torch.rand(2, len(tiles), generator=generator, dtype=torch.float64)
        turned = cut * torch.polar(torch.ones_like(constants), constants)[..., None, None]
        found = tiles.join(turned * tiles.turned(turned)[..., None, None])
        torch.testing.assert_close(one_shot.aligned(found, field), field.expand(2, *shape), atol=1e-6, rtol=0)

    def test_neighbours_share_half_or_more(self):
        for side in range(64, 300, 7):
            rows, _ = Tiles((side, 64), 64).corners
            assert rows[0] == 0
            assert rows[-1] == side - 64
            assert all(0 < step <= 32 for step in np.diff(rows))

    def test_padding_is_by_reflection(self):
        tiles = Tiles((16, 20), 64)
        field = moduli((16, 20))
        expected = np.pad(field.numpy(), ((24, 24), (22, 22)), mode="reflect")
        np.testing.assert_array_equal(tiles.cut(field)[0], expected)

    def test_a_tile_that_knows_nothing_turns_no_other(self):
        """Where the wave of one is 0 the others still agree."""
        tiles = Tiles((64, 64), 16)
        field = torch.polar(moduli((64, 64)), moduli((64, 64), 1))
        cut = (
            tiles.cut(field)
            * torch.polar(torch.ones(len(tiles)), torch.arange(len(tiles)) * 1.0)[:, None, None]
        )
        cut[20] = 0
        found = cut * tiles.turned(cut)[:, None, None]
        factor = (found * tiles.cut(field).conj()).sum((1, 2)).sgn()
        kept = torch.arange(len(tiles)) != 20
        torch.testing.assert_close(factor[kept], factor[0].expand(int(kept.sum())), atol=1e-6, rtol=0)

    def test_many_noisy_tiles(self):
        """Constants are found to less than the noise of a pixel, also far from each other."""
        shape = (400, 400)
        tiles = Tiles(shape, 16)
        generator = torch.Generator().manual_seed(3)
        cut = torch.polar(
            torch.ones(len(tiles), 16, 16), 0.8 * torch.randn(len(tiles), 16, 16, generator=generator)
        )
        constants = 2 * math.pi * torch.rand(len(tiles), generator=generator)
        cut = cut * torch.polar(torch.ones(len(tiles)), constants)[:, None, None]
        factors = tiles.turned(cut) * torch.polar(torch.ones(len(tiles)), constants)
        apart = (factors * factors.mean().conj()).angle()
        # The mean of 128 such pixels, which an overlap has, is off by 0.8 * sqrt(2 / 128) = 0.1 rad.
        assert float(apart.square().mean().sqrt()) < 0.2


class TestWave:
    @pytest.mark.parametrize(
        ("shape", "given"),
        [((40, 40), 1), ((64, 64), 1), ((150, 97), 12), ((16, 130), 4)],
    )
    def test_of_a_network_that_knows_it(self, shape, given):
        modulus, oracle = moduli(shape), Oracle()
        found = retrieve(modulus.square(), network=oracle)
        records.validate(found, "wave")
        np.testing.assert_allclose(records.from_parts(found["wave"]), truth_of(modulus), atol=ROUNDING)
        assert oracle.shape == (given, 1, 64, 64)
        assert float(found["disagreement"]) < ROUNDING
        assert "warning" not in found.attrs
        conditions = one_shot.conditions_of(ENERGY, THICKNESS, FINE)
        torch.testing.assert_close(oracle.told, conditions.expand(given, 3))

    def test_is_not_its_conjugate(self):
        modulus = moduli((64, 64))
        made = records.from_parts(retrieve(modulus.square())["wave"])
        assert np.abs(made - truth_of(modulus).conj()).mean() > 0.5

    def test_modulus_or_intensity_in_any_unit(self):
        modulus = moduli((40, 70))
        one = retrieve(modulus.square())
        again = retrieve(300 * modulus, modulus=True)
        np.testing.assert_allclose(again["wave"], one["wave"], atol=ROUNDING)
        other = retrieve(modulus, modulus=False)
        assert np.abs(other["wave"] - one["wave"]).max() > 0.1

    def test_keeps_positions_and_energy(self):
        record = record_of(moduli((64, 80)))
        record = record.assign_coords(y=record["y"] + 3.0)
        found = one_shot.retrieve(
            record, network=Oracle(), trained=TRAINED, thickness=THICKNESS, alternatives=0
        )
        np.testing.assert_array_equal(found["y"], record["y"])
        assert (float(found["energy"]), float(found["thickness"])) == (ENERGY, THICKNESS)

    def test_tiles_that_contradict_each_other(self):
        """Phases that have nothing to do with each other are told."""

        generator = torch.Generator().manual_seed(0)

        def guess(inputs, _):
            return components(2 * math.pi * torch.rand(inputs[:, 0].shape, generator=generator))

        found = retrieve(moduli((150, 97)), network=guess)
        apart = float(found["disagreement"])
        assert apart > 0.5
        assert report(found)[-1] == f"tiles differ from their blend by {apart:.2f} rad on average"

    def test_a_tile_alone_contradicts_nothing(self):
        """Whatever is made of what is reflected."""

        def lopsided(inputs, _):
            return components(torch.linspace(0, 6, 64 * 64).reshape(1, 64, 64))

        assert float(retrieve(moduli((40, 40)), network=lopsided)["disagreement"]) < ROUNDING

    def test_says_how_the_field_was_given(self):
        said = {
            shape: retrieve(moduli(shape)).attrs["field"]
            for shape in ((64, 64), (40, 50), (96, 96), (40, 100))
        }
        assert said[64, 64] == "the field has the 64 x 64 pixels that the network was trained with"
        assert said[40, 50].startswith(
            "the field was padded by reflection from 40 x 50 pixels to the 64 x 64"
        )
        assert said[96, 96].startswith("the field was cut into 4 tiles of 64 x 64 pixels")
        assert "padded by reflection from 40 x 100 pixels and cut into 3 tiles" in said[40, 100]


class TestAlternatives:
    @pytest.mark.parametrize("shape", [(64, 64), (150, 97)])
    def test_spread(self, shape):
        """Of two normal deviates: 2 σ/√π on average; tiles share their noise, so that the field is whole."""
        modulus = moduli(shape)
        found = retrieve(modulus.square(), alternatives=4, flow=Drawing(0.2), seed=5)
        # Six thousand pixels or more of six pairs.
        assert float(found["spread"].mean()) == pytest.approx(0.4 / math.sqrt(math.pi), rel=0.03)
        generator = torch.Generator().manual_seed(5)
        noise = torch.stack([torch.randn(2, *shape, generator=generator)[0] for _ in range(4)])
        wave = torch.as_tensor(records.from_parts(found["wave"]))
        exact = one_shot.aligned(wave * torch.polar(torch.ones_like(noise), 0.2 * noise), wave).angle()
        apart = torch.polar(torch.ones_like(exact), torch.as_tensor(found["alternatives"].values) - exact)
        assert float(apart.angle().abs().max()) < 1e-3

    def test_nothing_known(self):
        """Unrelated phases are a quarter turn apart, and constants do not count."""
        wild = retrieve(moduli((96, 96)), alternatives=3, flow=Drawing(100.0))
        assert float(wild["spread"].mean()) == pytest.approx(math.pi / 2, rel=0.03)
        tame = retrieve(moduli((96, 96)), alternatives=3, flow=Drawing(0.0))
        assert float(tame["spread"].max()) < 1e-3
        assert "3 alternatives differ by 0.00 rad on average" in report(tame)[-1]

    def test_follow_from_the_seed(self):
        one, same, other = (
            retrieve(moduli((64, 64)), alternatives=2, flow=Drawing(), seed=seed)["spread"]
            for seed in (0, 0, 1)
        )
        np.testing.assert_allclose(one, same, atol=ROUNDING)
        assert np.abs(one - other).max() > 0.1

    def test_of_a_network_trained_otherwise(self):
        told = []
        other = replace(TRAINED, pixels=32, energies=(300e3,))
        found = retrieve(
            moduli((40, 40)), alternatives=2, flow=Drawing(), flow_trained=other, warn=told.append
        )
        assert told == ["an energy of 200 keV, but the network was trained with 300 keV"]
        lines = report(found)
        assert lines[0].startswith("network trained in at most 2000 steps on crops of 64 x 64 pixels")
        assert lines[1].startswith(
            "that of the alternatives trained in at most 2000 steps on crops of 32 x 32 pixels"
        )
        assert lines[2].startswith("the field was padded")


class TestTraining:
    def test_is_that_of_the_weights(self, tmp_path):
        parameters = Parameters.at("workshop", steps=7)
        path = weights_of(tmp_path / "net.safetensors", parameters)
        _, found, _ = deployed.load(deployed.NETWORK, path)
        expected = replace(TRAINED, steps=7, energies=VOLTAGES, sampling=(66 / 512, 116 / 512))
        assert found == expected
        said = found.statement()
        for part in (
            "7 steps", "64 x 64 pixels", "1600 simulated waves", "240 crystals", "scope multi", "n_terms 3",
            "80, 200 and 300 keV", "thickness 5 to 100 nm", "0.129 to 0.227 Å", "without noise",
        ):  # fmt: skip
            assert part in said
        restricted = Parameters.at("workshop", scope="restricted")
        _, found, _ = deployed.load("", weights_of(tmp_path / "r.safetensors", restricted))
        assert found.thickness == (50.0, 237.5)

    @pytest.mark.parametrize(
        ("known", "named"),
        [
            ({"energy": 120e3}, "120 keV, but the network was trained with 80, 200 and 300 keV"),
            ({"thickness": 40.0}, "4 nm, but the network was trained with 5 to 100 nm"),
            ({"thickness": 1100.0}, "110 nm, but"),
            ({"sampling": 0.12}, "pixels of 0.12 Å, but the network was trained with 0.129 to 0.227 Å"),
            ({"sampling": 0.25}, "resample"),
        ],
    )
    def test_what_is_outside_of_it(self, known, named):
        inside = {"energy": ENERGY, "thickness": THICKNESS, "sampling": FINE}
        assert TRAINED.doubts(**inside) == []
        [told] = TRAINED.doubts(**inside | known)
        assert named in told


def weights_of(path, parameters, inputs=1, conditions=3, **about):
    """Write the weights of a network that learned nothing."""
    made = records.provenance(
        "test", paper="ede2020", scale="smoke", parameters=parameters.model_dump(), seed=0
    )
    network = UNet(inputs, 2, width=4, depth=2, conditions=conditions)
    return save_weights(path, network, {"provenance": made} | about)


class TestRefusals:
    def test_images(self):
        fine = moduli((40, 40)).numpy()
        cases = [
            (np.ones((40, 40)), "the image is blank"),
            (-fine, "the image is blank"),
            (fine[:15], r"image of \(15, 40\) pixels: give at least 16"),
            (
                np.where(np.arange(40) == 7, -50.0, 100 + fine),
                "40 pixels are negative beyond noise, the least -50",
            ),
        ]
        for image, named in cases:
            with pytest.raises(InputError, match=named) as told:
                retrieve(image)
            assert "\n" not in str(told.value)
        with pytest.raises(InputError, match="2 images, but one is taken"):
            one_shot.retrieve(
                records.images(np.stack([fine, fine]), defocus=[0, 10], sampling=FINE, energy=ENERGY),
                network=Oracle(), trained=TRAINED, thickness=THICKNESS,
            )  # fmt: skip
        with pytest.raises(InputError, match=r"pixels of 0\.1 x 0\.2 Å"):
            one_shot.retrieve(
                record_of(fine, sampling=(0.1, 0.2)), network=Oracle(), trained=TRAINED, thickness=THICKNESS
            )

    def test_a_few_negative_pixels_are_noise(self):
        generator = np.random.default_rng(0)
        image = np.linspace(0, 4, 64) + 0.05 * generator.standard_normal((64, 64))
        negative = int((image < 0).sum())
        assert negative > 10
        told = []
        found = retrieve(image, warn=told.append)
        assert [text.split(" by noise")[0] for text in told] == [f"{negative} pixels are negative"]
        assert found.attrs["warning"] == told[0]
        assert int((records.from_parts(found["wave"]) == 0).sum()) == negative

    def test_an_image_out_of_focus(self):
        told = []
        one_shot.retrieve(
            record_of(moduli((64, 64)), defocus=[50.0]), network=Oracle(), trained=TRAINED,
            thickness=THICKNESS, alternatives=0, warn=told.append,
        )  # fmt: skip
        assert told == ["the file tells a defocus of +5 nm, but the network knows images in focus only"]

    @pytest.mark.parametrize(
        ("options", "named"),
        [
            ({"thickness": None}, "the thickness is not known: pass thickness="),
            ({"thickness": -3.0}, "thickness=-3 is not positive"),
            ({"thickness": math.nan}, "thickness=nan is not positive"),
            ({"alternatives": 1, "flow": Drawing()}, "alternatives=1 have no spread"),
            ({"alternatives": 4}, "4 alternatives, but no flow"),
            ({"network": UNet(2, 2, width=4, depth=2, conditions=3)}, "in_channels 2, not 1"),
            ({"network": UNet(1, 2, width=4, depth=2)}, "conditions 0, not 3"),
            ({"network": lambda inputs, _: inputs}, r"makes \(1, 1, 64, 64\) of \(1, 1, 64, 64\)"),
            ({"network": lambda inputs, _: math.nan * components(inputs[:, 0])}, "not the finite cosine"),
        ],
    )
    def test_options(self, options, named):
        with pytest.raises(InputError, match=named) as told:
            retrieve(moduli((40, 40)), **options)
        assert "\n" not in str(told.value)


@pytest.fixture
def call(tmp_path, monkeypatch, exitwave):
    """Run the command on an image, with networks that learned nothing."""
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", 870 * moduli((40, 33)).square().numpy())
    parameters = Parameters.at("smoke")
    weights_of(tmp_path / "net.safetensors", parameters)
    weights_of(tmp_path / "flow.safetensors", parameters, inputs=3, conditions=3 + flow.TIMES)
    known = {"--energy": "200keV", "--pixel": "0.02nm", "--thickness": "10nm"}
    known |= {"--weights": "net.safetensors", "--flow-weights": "flow.safetensors"}

    def run(*arguments, files=("x.npy",), without=()):
        given = [each for pair in known.items() if pair[0] not in without for each in pair]
        return exitwave("retrieve", "one-shot", *files, "-o", "wave.nc", *given, *arguments)

    return run


class TestCommand:
    def test_from_an_image_to_a_wave(self, call, tmp_path):
        before = {path.name for path in tmp_path.iterdir()}
        status, output, errors = call("--alternatives", 3)
        assert (status, errors) == (0, "")
        lines = output.splitlines()
        assert lines[:2] == ["wave.nc", "wave.png"]
        assert lines[2].startswith(
            "network trained in at most 6 steps on crops of 24 x 24 pixels of 24 simulated waves"
        )
        assert lines[3].startswith("the field was cut into 6 tiles of 24 x 24 pixels")
        assert lines[4] == "phases are known but for a constant: here the mean of the wave is positive"
        assert lines[6].startswith("3 alternatives differ by ")
        found = records.load("wave.nc", "wave")
        modulus = np.load("x.npy") ** 0.5
        np.testing.assert_allclose(
            np.abs(records.from_parts(found["wave"])), modulus / np.sqrt((modulus**2).mean()), rtol=1e-5
        )
        assert found["alternatives"].shape == (3, 40, 33)
        assert found["spread"].shape == (40, 33)
        used = records.provenance_of(found)["parameters"]
        assert (used["weights"], used["flow_weights"]) == ("net.safetensors", "flow.safetensors")
        assert (used["thickness"], used["files"]) == (100.0, ["x.npy"])
        assert found.attrs["trained"] in lines[2]
        assert {path.name for path in tmp_path.iterdir()} - before == {"wave.nc", "wave.png"}

    def test_the_image_is_not_written_over(self, call):
        before = Path("x.npy").read_bytes()
        status, output, errors = call("-o", "x.npy")
        assert (status, output) == (2, "")
        assert "x.npy is one of the images: give another --output" in errors
        assert Path("x.npy").read_bytes() == before

    def test_is_what_the_networks_say(self, call, tmp_path):
        """Of a field as large as a tile: the network itself, and the flow from the noise of the seed."""
        modulus = moduli((24, 24)).float()
        np.save("small.npy", modulus.numpy())
        given = ["--modulus", "--alternatives", 2, "--seed", 7, "--no-preview"]
        assert call(*given, files=("small.npy",))[0] == 0
        found = records.load("wave.nc")
        inputs = (modulus / modulus.mean())[None, None]
        told = one_shot.conditions_of(200e3, 100.0, 0.2)[None]
        network, _, _ = deployed.load("", Path("net.safetensors"))
        drawing, _, _ = deployed.load("", Path("flow.safetensors"), inputs=3, conditions=flow.TIMES)
        with torch.no_grad():
            made = network(inputs, told)
        phase = torch.atan2(made[0, 1], made[0, 0])
        scale = modulus.square().mean().sqrt()
        expected = one_shot.in_gauge(torch.polar(modulus / scale, phase))
        np.testing.assert_allclose(records.from_parts(found["wave"]), expected, atol=1e-3)
        noise = torch.Generator().manual_seed(7)
        for shown_phase in torch.as_tensor(found["alternatives"].values):
            end = flow.sample(drawing, inputs, told, noise)
            drawn = torch.polar(modulus, torch.atan2(end[0, 1], end[0, 0]))
            torch.testing.assert_close(
                torch.polar(modulus, shown_phase), one_shot.aligned(drawn, expected), atol=1e-2, rtol=0
            )

    def test_without_alternatives(self, call, tmp_path):
        status, output, errors = call(
            "--alternatives", 0, "--no-preview", "--energy", "120keV", without=["--flow-weights"]
        )
        assert status == 0
        assert "alternatives" not in output
        assert errors.splitlines() == [
            "exitwave: warning: an energy of 120 keV, but the network was trained with 80, 200 and 300 keV"
        ]
        found = records.load("wave.nc")
        assert "spread" not in found
        assert found.attrs["warning"] in errors
        assert not (tmp_path / "wave.png").exists()

    def test_a_tif(self, call):
        tifffile = pytest.importorskip("tifffile")
        tifffile.imwrite("x.tif", np.load("x.npy").astype(np.float32))
        assert call("--alternatives", 0, "--no-preview", files=["x.tif"], without=["--flow-weights"])[0] == 0
        one = records.load("wave.nc")
        assert call("--alternatives", 0, "--no-preview", without=["--flow-weights"])[0] == 0
        np.testing.assert_allclose(one["wave"], records.load("wave.nc")["wave"], atol=1e-3)

    @pytest.mark.parametrize(
        ("given", "without", "named"),
        [
            ([], ["--thickness"], "the thickness is not known: pass --thickness"),
            ([], ["--energy", "--pixel"], "pass --pixel ... (pixel size, Å), --energy"),
            (["--thickness", "10eV"], [], "thickness '10eV'"),
            (["--thickness", "-1nm"], [], "--thickness -10 is not positive"),
            (["--alternatives", 1], [], "--alternatives 1 have no spread"),
            (["--alternatives", 0], [], "leave out --flow-weights"),
            (["--weights", "x.npy"], [], "x.npy: not a readable safetensors file"),
            (["--weights", "flow.safetensors"], [], "flow.safetensors: the network has in_channels 3, not 1"),
            (
                ["--flow-weights", "net.safetensors"],
                [],
                "net.safetensors: the network has in_channels 1, not 3",
            ),
            (["--weights", "silent.safetensors"], [], "silent.safetensors: weights that do not say how"),
        ],
    )
    def test_refusals(self, call, tmp_path, given, without, named):
        weights_of(tmp_path / "silent.safetensors", Parameters.at("smoke"), provenance={})
        status, output, errors = call(*given, without=without)
        assert (status, output) == (2, "")
        [line] = errors.splitlines()
        assert line.startswith("exitwave: ")
        assert named in line
        assert not (tmp_path / "wave.nc").exists()

    @pytest.mark.parametrize(
        ("image", "named"),
        [
            (np.ones((3, 40, 40)) + np.eye(40), "3 images, but one is taken"),
            (np.ones(40), "give an image (y, x)"),
            (np.full((40, 40), np.nan), "1600 pixels are not finite"),
            (np.ones((40, 40)), "the image is blank"),
            (np.eye(12), "give at least 16 along each side"),
            (1j * np.ones((40, 40)), "complex values"),
        ],
    )
    def test_files_of_no_use(self, call, image, named):
        np.save("bad.npy", image)
        status, output, errors = call(files=["bad.npy"])
        assert (status, output) == (2, "")
        [line] = errors.splitlines()
        assert named in line

    def test_two_files(self, call):
        status, _, errors = call(files=["x.npy", "x.npy"])
        assert status == 2
        assert "2 images, but one is taken" in errors

    def test_released_networks_are_the_default(self, call, tmp_path, monkeypatch):
        monkeypatch.setenv("EXITWAVE_DATA", str(tmp_path / "data"))
        folder = tmp_path / "data" / "ede2020" / "weights"
        folder.mkdir(parents=True)
        for run, name in ((deployed.NETWORK, "net"), (deployed.FLOW, "flow")):
            (folder / f"{run}-0.safetensors").write_bytes((tmp_path / f"{name}.safetensors").read_bytes())
        assert call("--no-preview")[0] == 0
        given = records.load("wave.nc")
        assert call("--no-preview", without=["--weights", "--flow-weights"])[0] == 0
        found = records.load("wave.nc")
        np.testing.assert_array_equal(found["alternatives"], given["alternatives"])
        np.testing.assert_array_equal(found["wave"], given["wave"])


class TestPreview:
    def test_what_it_shows(self):
        found = retrieve(moduli((64, 96)), alternatives=3, flow=Drawing())
        figure = one_shot_preview.draw(found)
        panels = [axes for axes in figure.axes if axes.get_xlabel() == "x (Å)"]
        titles = ["amplitude", "phase of the network", "spread of the alternatives"]
        assert [axes.get_title() for axes in panels] == [*titles, *(f"alternative {i}" for i in (1, 2, 3))]
        wave = records.from_parts(found["wave"])
        shown_values = [axes.images[0].get_array() for axes in panels]
        expected = [np.abs(wave), np.angle(wave), found["spread"], *found["alternatives"][:3]]
        for one, other in zip(shown_values, expected, strict=True):
            np.testing.assert_array_equal(one, other)
        for axes in (panels[1], *panels[3:]):
            assert axes.images[0].get_cmap().name == "twilight"
            assert axes.images[0].get_clim() == pytest.approx((-math.pi, math.pi))
        labels = {axes.get_ylabel() for axes in figure.axes if axes not in panels}
        assert labels == {"amplitude (1)", "phase (rad)", "distance (rad)"}
        assert len(one_shot_preview.draw(retrieve(moduli((64, 96)))).axes) == 4


def test_an_image_is_not_written_over(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("image.npy", moduli((32, 32)).numpy())
    before = Path("image.npy").read_bytes()
    Path("wave.png").write_bytes(b"an image")
    for name, output in (("image.npy", "image.npy"), ("wave.png", "wave.nc")):
        with pytest.raises(InputError, match=f"{name} is one of the images: give another --output"):
            retrieving.check_output(Path(output), [Path(name)])
    retrieving.check_output(Path("other.nc"), [Path("image.npy")])
    assert Path("image.npy").read_bytes() == before
