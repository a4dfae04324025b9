"""``exitwave retrieve network``: patterns in the network's pixels, what it is told, and what it explains."""

import math

import numpy as np
import pytest
import torch
from scan_files import ANGLE, ENERGY, FREQUENCY, SIZE, STEP, phase, record
from torch import nn

from exitwave import records
from exitwave.errors import InputError
from exitwave.networks.released import read_network
from exitwave.networks.scannet import ScanNet, scan_conditions
from exitwave.networks.weights import save_weights
from exitwave.optics import wavelength
from exitwave.papers.cao2020 import deployed, general, methods
from exitwave.papers.cao2020.parameters import Parameters
from exitwave.readers.bright_disk import find_disk
from exitwave.readers.scans import Scan, read_scan
from exitwave.retrieve import learned_scan, scan_network, scan_tiles
from exitwave.retrieve.scan_orientation import Orientation

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPE, STRENGTH = (24, 28), 0.05
WORKSHOP = Parameters.at("workshop")


def seeded(number):
    return torch.Generator().manual_seed(number)


# --- patterns in other pixels ---------------------------------------------------------------------


def test_nothing_changes_where_nothing_is_turned():
    matrix = scan_network.resampling((8, 8), 1.0, Orientation(), count=8, out=1.0)
    torch.testing.assert_close(matrix.to_dense(), torch.eye(64))


def test_blocks_of_pixels_are_those_that_the_network_learned_from():
    counts = torch.rand(3, 2, 48, 48, generator=seeded(0))
    trained = deployed.trained_with({"provenance": {"paper": "cao2020", "parameters": WORKSHOP.model_dump()}})
    matrix = scan_network.resampling(
        (48, 48), WORKSHOP.pixel, Orientation(), count=trained.pixels, out=trained.pixel,
        origin=trained.origin,
    )  # fmt: skip
    made = scan_network.resampled(counts, matrix)
    torch.testing.assert_close(made, methods.coarse(counts))


@pytest.mark.parametrize("angle", [math.pi / 2, -math.pi / 2, math.pi])
@pytest.mark.parametrize("transposed", [False, True])
def test_right_angles_are_exact(angle, transposed):
    turn = Orientation(angle, transposed)
    pattern = torch.zeros(1, 1, 16, 16)
    pattern[0, 0, 3, 5], pattern[0, 0, -2, 1] = 2.0, 1.0
    made = scan_network.resampled(pattern, scan_network.resampling((16, 16), 1.0, turn, count=16, out=1.0))
    wanted = torch.zeros(16, 16)
    for place, value in (((3.0, 5.0), 2.0), ((-2.0, 1.0), 1.0)):
        y, x = turn.turned(torch.tensor(place)).round().long().tolist()
        wanted[y, x] = value
    torch.testing.assert_close(made[0, 0], wanted)


@pytest.mark.parametrize("pixel", [0.4, 1.0, 2.3])
def test_a_turned_pattern_keeps_its_electrons_and_its_turned_centre_of_mass(pixel):
    turn = Orientation(0.4, transposed=True)
    order = torch.fft.fftfreq(16, 1 / 16)
    blob = torch.exp(-((order[:, None] - 2) ** 2 + (order + 1) ** 2) / 3)[None, None]
    count = 48
    matrix = scan_network.resampling(
        (16, 16), pixel, turn, count=count, out=1.0, centre=(0.3, -0.2), origin=-0.25
    )
    made = scan_network.resampled(blob, matrix)[0, 0]
    assert float(made.sum()) == pytest.approx(float(blob.sum()), rel=1e-4)
    found = torch.fft.fftfreq(count, 1 / count)
    mass = torch.stack([(made.sum(1) * found).sum(), (made.sum(0) * found).sum()]) / made.sum()
    wanted = pixel * turn.turned(torch.tensor([2 - 0.3, -1 + 0.2])) - 0.25
    torch.testing.assert_close(mass, wanted.float(), atol=0.02, rtol=0)


# --- a scan in a file -----------------------------------------------------------------------------


class Known(nn.Module):
    """Answers with a known phase, whatever it is shown."""

    def __init__(self, truth, unit=0.1):
        super().__init__()
        rows, columns = (n + (-n) % 8 for n in truth.shape)
        padded = np.pad(truth, ((0, rows - truth.shape[0]), (0, columns - truth.shape[1])), mode="reflect")
        self.register_buffer("answer", torch.as_tensor(padded, dtype=torch.float32) / unit)

    def forward(self, patterns, told=None):
        assert told.shape == (1, 3)
        rows, columns = patterns.shape[1:3]
        return self.answer[None, None, :rows, :columns]


@pytest.fixture(scope="module")
def truth():
    y, x = np.meshgrid(*(np.arange(n) * STEP for n in SHAPE), indexing="ij")
    return phase(y, x, SHAPE, STRENGTH)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    kinds = {
        "plain": {"defocus": 0.0},
        "turned": {"defocus": 60.0, "rotation": 0.5},
        "exchanged": {"defocus": 60.0, "rotation": -2.0, "transposed": True},
    }
    return {
        name: records.save(record(SHAPE, strength=STRENGTH, **kind), folder / f"{name}.nc")
        for name, kind in kinds.items()
    }


def trained(**changed):
    how = {
        "energy": ENERGY, "pixel": 2 * FREQUENCY * wavelength(ENERGY), "pixels": 24, "origin": -0.25,
        "step": (0.5, 1.0), "semiangle": (0.02, 0.04), "defocus": (-100.0, 100.0), "dose": (1e3, 1e9),
        "unit": 0.1, "scans": 3, "updates": 2,
    }  # fmt: skip
    return scan_network.Trained(**how | changed)


def retrieved(file, network, **options):
    known = {name: options.pop(name) for name in ("defocus", "rotation") if name in options}
    scan = read_scan(file)
    scan = scan.oriented(transpose=options.pop("transpose", False)).calibrated(**known)
    disk = find_disk(scan.summary().total)
    lines = []
    how = {"trained": trained(), "conditions": scan_conditions} | options
    return scan_network.retrieve(scan, disk, network=network, warn=lines.append, **how), lines


@pytest.mark.parametrize(
    ("kind", "known"),
    [
        ("plain", {"defocus": 0.0, "rotation": 0.0}),
        ("turned", {"defocus": 60.0, "rotation": 0.5}),
        ("exchanged", {"defocus": 60.0, "rotation": -2.0, "transpose": True}),
    ],
)
def test_the_true_phase_explains_the_patterns_and_its_negative_does_not(files, truth, kind, known):
    right, lines = retrieved(files[kind], Known(truth), **known)
    np.testing.assert_allclose(right["phase"], truth - truth.mean(), atol=0.02)
    assert records.sampling_of(right) == pytest.approx((STEP, STEP))
    left = float(right["unexplained"])
    assert left < 0.2
    for wrong in (Known(-truth), Known(truth[::-1]), Known(truth[:, ::-1])):
        assert float(retrieved(files[kind], wrong, **known)[0]["unexplained"]) > 1
    assert lines == []
    assert "3 two-dimensional materials" in right.attrs["trained"]


def test_what_is_not_as_in_the_training_is_said(files, truth):
    how = trained(
        energy=200e3, step=(0.2, 0.4), semiangle=(0.01, 0.02), defocus=(10.0, 20.0), dose=(1e2, 1e4),
        pixel=4 * FREQUENCY * wavelength(ENERGY),
    )  # fmt: skip
    _, lines = retrieved(files["plain"], Known(truth), trained=how, rotation=0.0)
    text = "\n".join(lines)
    assert "defocus is not known: 0 is used" in text
    assert "an energy of 80 keV, but the network was trained with 200 keV" in text
    assert "steps of 0.8 Å, but the network was trained with 0.2 to 0.4 Å" in text
    angle = float(text.partition("a semi-angle of ")[2].split()[0])
    assert angle == pytest.approx(1e3 * ANGLE, rel=0.05)
    assert "mrad, but the network was trained with 10 to 20 mrad" in text
    assert "a dose of 1.56e+06 electrons per Å², but the network was trained with 100 to 1e+04" in text
    assert "a defocus of 0 Å, but the network was trained with 10 to 20 Å" in text
    assert "a detector that ends at 83.5 mrad" in text
    assert len(lines) == 7


def test_a_dose_that_is_none_is_refused(files, truth):
    with pytest.raises(InputError, match="a dose of -1 electrons per Å² is not positive"):
        retrieved(files["plain"], Known(truth), dose=-1.0, rotation=0.0, defocus=0.0)


# --- large scans --------------------------------------------------------------------------------


class Local(nn.Module):
    """A mean over 5 x 5 positions of what a mask sees of each pattern, less its mean over the field."""

    def forward(self, patterns, told=None):
        seen = (patterns * self.mask(patterns)).sum((3, 4))[:, None]
        padded = nn.functional.pad(seen, (2, 2, 2, 2), mode="reflect")
        made = nn.functional.avg_pool2d(padded, 5, 1)
        return made - made.mean()

    @staticmethod
    def mask(patterns):
        return torch.linspace(-1, 1, patterns.shape[-1])


@pytest.fixture(scope="module")
def seen():
    """Patterns of 56 x 70 positions, brighter and brighter along the scan."""
    y, x = (torch.arange(n, dtype=torch.float32) for n in (56, 70))
    ramp = (1 + 0.1 * y)[:, None] * (2 + 0.05 * x + torch.sin(x / 6))
    return ramp[..., None, None] * torch.rand(24, 24, generator=seeded(2))


@pytest.mark.parametrize("most", [24, 32])
def test_tiles_make_what_the_whole_is(seen, most):
    """Each of mean 0 by itself, though the field is no plane."""
    whole = scan_tiles.predict(Local(), seen)
    tiled = scan_tiles.predict(Local(), seen, most=most)
    assert whole.shape == tiled.shape == (56, 70)
    # Not the same, for tiles mirror what lies beyond their own edges.
    assert float((tiled - whole).square().mean().sqrt()) < 1e-3 * float(whole.std())
    assert float(tiled.mean()) == pytest.approx(0, abs=1e-4)


def test_encoding_in_parts_changes_nothing(seen, weights, monkeypatch):
    network, told = read_network(weights)[0].eval(), scan_conditions(1e4, 0.02, 0.0)
    whole = learned_scan.predict(network, seen, told)
    counted = []
    monkeypatch.setattr(scan_tiles, "_AT_ONCE", 500)
    network.encoder.register_forward_pre_hook(lambda _, given: counted.append(len(given[0])))
    torch.testing.assert_close(scan_tiles.predict(network, seen, told), whole, atol=1e-5, rtol=1e-4)
    assert max(counted) == 500
    assert sum(counted) == 56 * 72  # mirrored to whole blocks


def test_patterns_stay_in_their_file(files, truth, monkeypatch):
    """In blocks of one row the same comes out, and no more than a row, or a piece, is held at once."""
    known = {"defocus": 60.0, "rotation": 0.5}
    whole, _ = retrieved(files["turned"], Known(truth), **known)
    largest, blocks = [], Scan.blocks

    def narrow(self, rows=None, **how):
        for part, patterns in blocks(self, 1):
            largest.append(patterns.shape[0])
            yield part, patterns

    monkeypatch.setattr(Scan, "blocks", narrow)
    by_rows, _ = retrieved(files["turned"], Known(truth), **known)
    assert max(largest) == 1
    np.testing.assert_allclose(by_rows["phase"], whole["phase"], atol=1e-6)
    assert float(by_rows["unexplained"]) == pytest.approx(float(whole["unexplained"]), rel=1e-4)


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights of a small network that knows nothing."""
    folder = tmp_path_factory.mktemp("weights")
    about = {"provenance": {"paper": "cao2020", "parameters": WORKSHOP.model_dump()}}
    network = ScanNet((24, 24), features=4, encoder=(4, 8), width=4, depth=3, generator=seeded(0))
    path = folder / "w.safetensors"
    save_weights(path, network, about)
    untold = ScanNet((24, 24), features=4, encoder=(4, 8), width=4, depth=3, conditions=0)
    save_weights(folder / "untold.safetensors", untold, about)
    save_weights(folder / "silent.safetensors", network, {})
    return path


def test_the_command_writes_a_phase_and_a_picture(exitwave, files, weights, tmp_path):
    status, said, errors = exitwave(
        "retrieve", "network", files["plain"], "-o", tmp_path / "o.nc", "--weights", weights,
        "--defocus", "0", "--rotation", "0",
    )  # fmt: skip
    assert status == 0, errors
    made = records.load(tmp_path / "o.nc", "phase")
    assert made["phase"].shape == SHAPE
    assert (tmp_path / "o.png").stat().st_size > 10_000
    assert "trained in 1000 updates on simulated scans of 160" in said
    assert "% of what an empty object leaves" in said
    assert "steps of 0.8 Å, but the network was trained with 0.27 to 0.43 Å" in errors.replace("\n", " ")
    told = records.provenance_of(made)["parameters"]
    assert told["weights"] == "w.safetensors"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("untold", "no network of scans that is told probe and dose"),
        ("silent", "do not say how they were trained"),
        ("missing", "missing"),
    ],
)
def test_weights_of_something_else_are_refused(exitwave, files, weights, tmp_path, name, message):
    status, _, errors = exitwave(
        "retrieve", "network", files["plain"], "-o", tmp_path / "o.nc", "--weights",
        weights.with_name(f"{name}.safetensors"),
    )  # fmt: skip
    assert status == 2
    assert message in " ".join(errors.split())
    assert not (tmp_path / "o.nc").exists()


def test_the_statement_is_that_of_the_parameters():
    made = deployed.trained_with({"provenance": {"paper": "cao2020", "parameters": WORKSHOP.model_dump()}})
    assert (made.pixels, made.origin, made.pixel) == (24, -0.25, 0.0072)
    assert made.semiangle == general.SEMIANGLES
    assert made.unit == 0.1
    assert SIZE == 48
