"""Damaged shards, weights, checkpoints, points and results: named with a remedy, and left as they are."""

import json
import random
import shutil
import zlib

import h5py
import numpy as np
import pytest
import torch
import xarray as xr
from conftest import ROOT
from safetensors.torch import load, save
from torch import nn

from exitwave import records
from exitwave.chapters import scan_shards
from exitwave.chapters.points import Point, run_points
from exitwave.errors import InputError
from exitwave.networks import checkpoints, weights
from exitwave.networks.released import read_network, write_released
from exitwave.networks.tasks import Regression, adam
from exitwave.networks.training import CHECKPOINT, Options, fit
from exitwave.networks.unet import UNet
from exitwave.papers.webb2025 import studies
from exitwave.papers.webb2025.parameters import Parameters
from exitwave.project import specimen_file
from exitwave.readers import read_record

UNITS = {"units": "1", "long_name": "number"}


def damages(content, seed, flips=30):
    """Return what a file may become: nothing, another kind, cut anywhere, one bit changed anywhere."""
    chance = random.Random(seed)
    found = [
        b"",
        b"just some text\n" * 20,
        b"\x89HDF\r\n\x1a\n" + bytes(3000),
        b"PK\3\4" * 50,
        bytes(len(content)),
    ]
    found += [content[: chance.randrange(len(content))] for _ in range(12)]
    for _ in range(flips):
        changed = bytearray(content)
        changed[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        found.append(bytes(changed))
    return found


def left_alone(path, read, remedy, *, seed=0, flips=30, harmless=lambda found: False):
    """Check each damage: one line that names file and remedy, and not a byte is changed."""
    sound = path.read_bytes()
    for content in damages(sound, seed, flips):
        if content == sound or harmless(content):
            continue
        path.write_bytes(content)
        names = sorted(each.name for each in path.parent.iterdir())
        with pytest.raises(InputError, match=remedy) as caught:
            read()
        assert path.name in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1
        assert path.read_bytes() == content
        assert sorted(each.name for each in path.parent.iterdir()) == names
    path.write_bytes(sound)
    read()


def small_record(seed=0):
    values = np.random.default_rng(seed).random((30, 30))
    return records.with_provenance(
        records.phase(values, sampling=1.0, energy=2e5), records.provenance("x", parameters={"a": 1})
    )


def only_the_end(sound):
    """Tell of a record whether all of it but its checksum is there."""
    return lambda found: found[: len(sound) - 23] == sound[:-23]


class TestRecords:
    def test_whatever_has_changed_is_told(self, tmp_path):
        path = records.save(small_record(), tmp_path / "some.nc")
        left_alone(
            path,
            lambda: records.load(path),
            "make or fetch it again",
            flips=300,
            harmless=only_the_end(path.read_bytes()),
        )

    def test_a_bit_of_its_numbers(self, tmp_path):
        """Which netCDF itself does not notice."""
        path = records.save(
            records.phase(np.full((4, 4), 1.0), sampling=1.0, energy=2e5), tmp_path / "some.nc"
        )
        sound = path.read_bytes()
        place = sound.find(np.float64(1.0).tobytes() * 4)
        path.write_bytes(sound[:place] + np.float64(1.5).tobytes() + sound[place + 8 :])
        assert 1.5 in xr.load_dataset(path, engine="netcdf4")["phase"]
        with pytest.raises(InputError, match="its checksum is not that of its content"):
            records.load(path)

    def test_those_without_a_checksum_are_read(self, tmp_path):
        """Files of older versions, of other programs, and those that another program has changed."""
        record = small_record()
        record.to_netcdf(tmp_path / "foreign.nc")
        xr.testing.assert_identical(records.load(tmp_path / "foreign.nc"), record)
        path = records.save(record, tmp_path / "ours.nc")
        record.assign(more=((), 1.0)).to_netcdf(path, mode="a")
        assert float(records.load(path)["more"]) == 1.0

    def test_sizes_that_the_file_cannot_hold(self, tmp_path):
        path = tmp_path / "huge.nc"
        small_record().to_netcdf(path)
        with h5py.File(path, "a") as file:
            file.create_dataset("more", (10**6, 10**6), "f8", chunks=(100, 100))
        with pytest.raises(InputError, match=r"more declares 8000000000000 bytes"):
            records.load(path)

    @pytest.mark.parametrize(
        ("name", "value"), [("scale_factor", "x"), ("units", "seconds since never"), ("_FillValue", "none")]
    )
    def test_attributes_that_mean_something_else(self, tmp_path, name, value):
        path = tmp_path / "some.nc"
        small_record().to_netcdf(path)
        with h5py.File(path, "a") as file:
            file["phase"].attrs.pop(name, None)
            file["phase"].attrs[name] = value
        try:
            records.load(path)
        except InputError as error:
            assert len(str(error).splitlines()) == 1  # noqa: PT017

    def test_what_crashes_netcdf_is_refused(self, tmp_path):
        """Sound HDF5 of a kind that the netCDF library does not expect."""
        path = tmp_path / "some.nc"
        small_record().to_netcdf(path)
        with h5py.File(path, "a") as file:
            del file["x"], file["y"]
            file.create_dataset("x", (3, 1), "S5")
            file.create_dataset("y", (), "i1")
        with pytest.raises(InputError, match=r"some\.nc: (damaged|not a readable)"):
            read_record(path, "phase")


class TestTensors:
    @pytest.fixture
    def saved(self, tmp_path):
        network = UNet(1, 1, width=2, depth=1, generator=torch.Generator().manual_seed(0))
        return weights.save_weights(tmp_path / "some.safetensors", network, {"provenance": {"seed": 3}})

    @pytest.mark.parametrize(
        "read", [weights.read_tensors, weights.load_weights, weights.load_network, read_network]
    )
    def test_whatever_has_changed_is_told(self, saved, read):
        left_alone(saved, lambda: read(saved), "fetch|use one of", flips=60, harmless=self.same(saved))

    @staticmethod
    def same(saved):
        """Return what tells whether a file says the same: blanks between its two parts do not count."""
        sound = saved.read_bytes()
        length = int.from_bytes(sound[:8], "little")
        blank = len(sound[: 8 + length].rstrip())
        return lambda found: (
            len(found) == len(sound)
            and found[:blank] + found[8 + length :] == sound[:blank] + sound[8 + length :]
        )

    def test_those_of_older_versions_have_no_checksum_of_their_header(self, saved):
        content = saved.read_bytes()
        length = int.from_bytes(content[:8], "little")
        said = json.loads(content[8 : 8 + length])["__metadata__"]
        assert said.pop("exitwave crc32")
        saved.write_bytes(save(load(content), said))
        assert weights.load_network(saved)[1]["provenance"] == {"seed": 3}

    def test_released_ones_are_written_again_on_demand_only(self, saved, tmp_path):
        path = write_released(saved, tmp_path / "released" / "a-0.safetensors", {"run": "a"})
        left_alone(path, lambda: read_network(path), "again", flips=10, harmless=self.same(path))

    @pytest.mark.parametrize("number", [10**9, -(10**9), 10**30])
    def test_a_network_that_would_be_built_for_days(self, saved, number):
        tensors, about = weights.read_tensors(saved)
        about["architecture"]["depth"] = number
        weights.write_tensors(saved, tensors, about)
        for read in (weights.load_network, read_network):
            with pytest.raises(InputError, match=r"and no network has more than 4096.* again"):
                read(saved)

    @pytest.mark.parametrize("kind", [{"a": 1}, ["UNet"], None, 3, "U" * 5000])
    def test_a_network_of_no_name(self, saved, kind):
        tensors, about = weights.read_tensors(saved)
        weights.write_tensors(saved, tensors, about | {"network": kind})
        with pytest.raises(InputError, match="unknown network") as caught:
            weights.load_network(saved)
        assert len(str(caught.value)) < 500


class TestCheckpoints:
    def train(self, folder, epochs=2):
        generator = torch.Generator().manual_seed(0)
        given = torch.rand(8, 1, 8, 8, generator=generator)
        network = UNet(1, 1, width=2, depth=1, generator=torch.Generator().manual_seed(1))
        task = Regression(network, adam(network, 1e-3))
        data = {"input": given, "target": given**2}
        fit(task, data, Options(epochs, 4, "32"), generator=generator, folder=folder, resume=True)

    def test_a_training_does_not_go_on(self, tmp_path):
        self.train(tmp_path)
        path = tmp_path / CHECKPOINT
        left_alone(
            path,
            lambda: self.train(tmp_path),
            "again|remove it|use the same",
            flips=30,
            harmless=TestTensors.same(path),
        )

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda about: about.update(made_with=[]), "no checkpoint of this version"),
            (lambda about: about.update(made_with=None), "no checkpoint of this version"),
            (lambda about: about.pop("made_with"), "no checkpoint of this version"),
            (lambda about: about.pop("optimisers"), "damaged checkpoint"),
            (lambda about: about["optimisers"].clear(), "damaged checkpoint"),
            (lambda about: about.update(optimisers=1.5), "damaged checkpoint"),
            (lambda about: about["optimisers"]["m"].update(groups=[{}, {}]), "damaged checkpoint"),
            (lambda about: about.update(scalars="x"), "damaged checkpoint"),
        ],
    )
    def test_what_stands_in_it_may_be_anything_and_changes_nothing(self, tmp_path, change, said):
        path = tmp_path / "checkpoint.safetensors"
        made = []
        for _ in range(2):
            module = nn.Linear(3, 2)
            optimiser = torch.optim.Adam(module.parameters(), lr=1e-3)
            module(torch.ones(1, 3)).sum().backward()
            optimiser.step()
            made.append((module, optimiser))
        module, optimiser = made[0]
        fingerprint = checkpoints.fingerprint({}, {}, {"m": module}, {"m": optimiser})
        checkpoints.save(
            path, fingerprint, {"module": {"m": module}}, {"m": optimiser}, {"order": torch.arange(3)},
            {"step": 1, "seconds": 0.5},
        )  # fmt: skip
        tensors, about = weights.read_tensors(path)
        change(about)
        weights.write_tensors(path, tensors, about)
        other, its = made[1]
        before = [{k: v.clone() for k, v in other.state_dict().items()}, str(its.state_dict())]
        with pytest.raises(InputError, match=rf"{path.name}: {said}.*: remove it to start anew"):
            checkpoints.load(path, fingerprint, {"module": {"m": other}}, {"m": its})
        assert all(torch.equal(before[0][k], v) for k, v in other.state_dict().items())
        assert str(its.state_dict()) == before[1]

    @pytest.mark.parametrize("change", [{"format\nb": "x"}, {"data": "two\nlines"}])
    def test_what_differs_is_one_line(self, tmp_path, change):
        path = tmp_path / "checkpoint.safetensors"
        then = {"format": checkpoints.FORMAT, **change}
        weights.write_tensors(path, {}, {"made_with": then, "scalars": {}})
        with pytest.raises(InputError, match=r"was made with .*use the same again") as caught:
            checkpoints.load(path, {"format": checkpoints.FORMAT}, {}, {})
        assert len(str(caught.value).splitlines()) == 1

    @pytest.mark.parametrize("value", [None, "x", [], -1.0, 1e999, {}])
    def test_seconds_that_are_none(self, tmp_path, value):
        path = tmp_path / "checkpoint.safetensors"
        about = {"made_with": {"format": checkpoints.FORMAT}, "scalars": {"seconds": value}}
        if value == 1e999:
            about["scalars"] = {}
        weights.write_tensors(path, {}, about)
        with pytest.raises(InputError, match=r"damaged checkpoint .*: remove it to start anew"):
            checkpoints.seconds(path)


def test_points(project, monkeypatch):
    def quick(parameters, device="cpu"):
        return xr.Dataset({"value": ((), 1.0, UNITS)})

    monkeypatch.setitem(studies.STUDIES, "quick", quick)
    points = [Point("webb2025", "quick", Parameters.at("smoke", seed=seed)) for seed in (0, 1)]
    run_points(points, in_process=True)
    path = points[1].path
    left_alone(
        path,
        lambda: run_points(points, in_process=True),
        "remove it, and the same command computes it again",
        harmless=only_the_end(path.read_bytes()),
    )


def test_shards_of_a_scan(tmp_path):
    path = tmp_path / "lines-00000.nc"
    counts = np.zeros((2, 2, 4, 4), np.uint16)
    axes = {
        name: np.arange(size, dtype=float)
        for name, size in zip(("scan_y", "scan_x", "ky", "kx"), counts.shape, strict=True)
    }
    records.save(records.make_record("diffraction4d", counts, energy=8e4, **axes), path)
    left_alone(
        path, lambda: scan_shards._loaded(path), "remove it, and the same command makes it again",
        harmless=only_the_end(path.read_bytes()),
    )  # fmt: skip


class TestStoredResults:
    """Those of data/, which have been made before there were checksums in records."""

    STORED = "zhou2020/workshop/moderate-noise.nc"

    @pytest.fixture
    def stored(self, project):
        path = project / "data" / self.STORED
        path.parent.mkdir(parents=True)
        shutil.copy(ROOT / "data" / self.STORED, path)
        return path

    @pytest.mark.parametrize("damage", [b"", b"some text\n" * 9, None])
    def test_are_named_by_the_ledger_and_left_alone(self, stored, exitwave, damage):
        content = stored.read_bytes()[:-2000] if damage is None else damage
        stored.write_bytes(content)
        for command in (("claims", "--paper", "zhou2020"), ("reproduce", "--check", "1")):
            status, _, said = exitwave(*command)
            assert status == 2, command
            assert len(said.splitlines()) == 1
            assert str(stored) in said
            assert "make or fetch it again" in said
        assert stored.read_bytes() == content

    def test_specimens(self, project):
        name = "zhou2020/specimens/target.nc"
        path = project / "data" / name
        path.parent.mkdir(parents=True)
        path.write_bytes((ROOT / "data" / name).read_bytes()[:4000])
        with pytest.raises(InputError, match="make or fetch it again") as caught:
            records.load(specimen_file("zhou2020", "target"))
        assert str(path) in str(caught.value)
        assert path.stat().st_size == 4000


def test_the_checksum_is_that_of_zlib(tmp_path):
    path = records.save(small_record(), tmp_path / "some.nc")
    content = path.read_bytes()
    assert content[-23:] == f"exitwave crc32 {zlib.crc32(content[:-23]):08x}".encode()
