"""Released networks: 8 bits a weight, found by name, and refused in one line if they are not there."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from exitwave.errors import InputError
from exitwave.networks import released, weights
from exitwave.networks.fusionnet import FusionNet
from exitwave.project import released_file, released_files, released_name

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """A project of its own, whose results and runs are elsewhere."""
    (tmp_path / "project" / "notebooks").mkdir(parents=True)
    (tmp_path / "project" / "_toc.yml").write_text("")
    for name in ("project", "data", "runs"):
        monkeypatch.setenv(f"EXITWAVE_{name.upper()}", str(tmp_path / name))
    return tmp_path


@pytest.fixture
def network():
    """A small network whose norms have seen something."""
    made = FusionNet(2, 2, width=4, depth=1, generator=torch.Generator().manual_seed(1))
    made.train()
    made(torch.randn(8, 2, 16, 16, generator=torch.Generator().manual_seed(2)))
    return made.eval()


def put(folder, network, name, **about):
    source = weights.save_weights(folder / "source.safetensors", network, {"provenance": {"seed": 3}})
    return released.write_released(source, folder / "p" / "weights" / name, about)


class TestPacking:
    @given(data=st.data())
    @settings(max_examples=50, deadline=None)
    def test_each_filter_is_held_to_half_a_step_of_its_own(self, data):
        shape = data.draw(st.lists(st.integers(1, 5), min_size=2, max_size=4))
        generator = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
        size = 10.0 ** torch.empty(shape[0]).uniform_(-6, 4, generator=generator)
        values = torch.randn(shape, generator=generator) * size.view(-1, *[1] * (len(shape) - 1))
        values[0] = 0.0
        back = released.unpack(released.pack({"w": values}))["w"]
        assert back.dtype == torch.float32
        half = values.abs().flatten(1).amax(1) / (2 * 127)
        assert ((back - values).abs().flatten(1).amax(1) <= 1.001 * half).all()
        assert (back[0] == 0).all()

    def test_all_else_is_as_it_was(self):
        bias = torch.tensor([1.5, -2e-5]).half()
        before = {"bias": bias, "count": torch.tensor(7), "some": torch.arange(4)[None]}
        back = released.unpack(released.pack(before))
        assert back.keys() == before.keys()
        assert all(torch.equal(back[name].double(), value.double()) for name, value in before.items())
        assert (back["bias"].dtype, back["count"].dtype) == (torch.float32, torch.int64)


class TestFiles:
    def test_network_comes_back(self, folders, network):
        path = put(folders / "data", network, "some-1.safetensors", run="some")
        again = released.load_released("p", "some", 1)
        assert not again.training
        assert again.architecture == network.architecture
        x = torch.randn(4, 2, 16, 16, generator=torch.Generator().manual_seed(3))
        with torch.no_grad():
            one, other = again(x), network(x)
        assert (one - other).square().mean() < 1e-3 * other.var()  # a percent of each of its layers
        told = weights.read_about(path)
        assert (told["provenance"], told["run"]) == ({"seed": 3}, "some")

    def test_half_as_large(self, folders):
        large = FusionNet(3, 2, width=16, depth=2)
        path = put(folders / "data", large, "some-0.safetensors")
        assert path.stat().st_size < 0.6 * (folders / "data" / "source.safetensors").stat().st_size

    def test_what_holds_them_already_keeps_its_bytes(self, folders, network):
        path = put(folders / "data", network, "some-0.safetensors")
        first = path.read_bytes()
        for _ in range(5):  # the order of a header is drawn anew each time
            assert put(folders / "data", network, "some-0.safetensors").read_bytes() == first
        put(folders / "data", network, "some-0.safetensors", run="other")
        assert weights.read_about(path)["run"] == "other"
        path.write_bytes(first[:-5])
        put(folders / "data", network, "some-0.safetensors")
        assert len(path.read_bytes()) == len(first)
        with torch.no_grad():
            network.last.bias.add_(1.0)
        put(folders / "data", network, "some-0.safetensors")
        assert torch.equal(released.load_released("p", "some", 0).last.bias, network.last.bias.half().float())

    def test_in_the_results_or_the_project(self, folders, network):
        here, there = (
            put(folders / name, network, "some-0.safetensors") for name in ("data", "project/data")
        )
        assert released_file("p", "some", 0) == here
        here.unlink()
        assert released_file("p", "some", 0, "smoke") == there

    def test_larger_ones_may_be_among_the_runs(self, folders, network):
        path = put(folders / "runs", network, released_name("some", 0, "gpu"))
        assert path.name == "some-0-gpu.safetensors"
        assert released_file("p", "some", 0, "gpu") == path
        assert released_files("p", "some", "gpu") == [path]
        assert released_files("p", "some") == []

    def test_those_of_a_run_and_no_other(self, folders, network):
        for name in ("some-0", "some-1", "some-3", "some-more-0"):
            put(folders / "data", network, f"{name}.safetensors")
        assert [path.stem for path in released_files("p", "some")] == ["some-0", "some-1"]

    @pytest.mark.parametrize(
        ("scale", "commands"),
        [
            ("workshop", ["`exitwave train p --run some --seed 2`", "`exitwave reproduce p --only some`"]),
            ("gpu", ["`exitwave train p --scale gpu --run some --seed 2`", "some-2-gpu.safetensors"]),
        ],
    )
    @pytest.mark.usefixtures("folders")
    def test_missing(self, scale, commands):
        with pytest.raises(InputError, match="is missing: make it with") as error:
            released.load_released("p", "some", 2, scale)
        assert all(each in str(error.value) for each in commands)
        assert "\n" not in str(error.value)

    def test_what_is_no_network_of_this_version(self, folders, network):
        place = folders / "data" / "p" / "weights" / "some-0.safetensors"
        packed = released.pack(network.state_dict())
        about = {"network": "FusionNet", "architecture": network.architecture}
        for told, held in (
            ({**about, "network": "FissionNet"}, packed),
            ({**about, "architecture": {"width": 4}}, packed),
            (about, {name: each for name, each in packed.items() if "last" not in name}),
        ):
            weights.write_tensors(place, held, told)
            with pytest.raises(InputError, match="no network of this version") as error:
                released.load_released("p", "some", 0)
            assert "\n" not in str(error.value)
        place.write_bytes(place.read_bytes()[:-9])
        with pytest.raises(InputError, match="some-0"):
            released.load_released("p", "some", 0)
