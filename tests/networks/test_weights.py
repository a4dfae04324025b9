"""Weights in files: what comes back, and what is refused."""

import contextlib
import json

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exitwave.errors import InputError
from exitwave.networks import weights
from exitwave.networks.pix2pix import GlobalGenerator, MultiscaleDiscriminator
from exitwave.networks.unet import UNet
from exitwave.provenance import provenance

NETWORKS = [
    GlobalGenerator(1, 2, width=4, downsamplings=1, blocks=1, padding="circular", conditions=2),
    MultiscaleDiscriminator(2, width=4, layers=2, scales=1),
    UNet(1, 1, width=4, depth=1, padding="reflect"),
]


@pytest.fixture
def saved(tmp_path):
    return weights.save_weights(tmp_path / "some.safetensors", NETWORKS[2], {"provenance": {"seed": 3}})


@pytest.mark.parametrize("network", NETWORKS, ids=lambda each: type(each).__name__)
def test_network_comes_back_to_half_precision(network, tmp_path):
    about = {"provenance": provenance("test", seed=1), "scale": 0.5}
    path = weights.save_weights(tmp_path / "deep" / "w.safetensors", network, about)
    again, told = weights.load_network(path)
    assert told["scale"] == 0.5
    assert told["provenance"]["seed"] == 1
    assert type(again) is type(network)
    assert again.architecture == network.architecture
    assert not again.training
    for name, value in network.state_dict().items():
        found = again.state_dict()[name]
        assert found.dtype == torch.float32
        # Half a unit in the last of 11 bits, or of the smallest number.
        assert torch.allclose(found, value, rtol=2**-11, atol=2**-25), name
        assert torch.equal(found, value.half().float()), name
    # Two bytes a number, and a header.
    size = 2 * sum(each.numel() for each in network.parameters())
    assert size < path.stat().st_size < size + 20_000
    assert [each.name for each in path.parent.iterdir()] == ["w.safetensors"]


def test_header_is_readable_without_this_package(saved):
    head = saved.read_bytes()
    length = int.from_bytes(head[:8], "little")
    metadata = json.loads(head[8 : 8 + length])["__metadata__"]
    assert json.loads(metadata["exitwave"])["provenance"] == {"seed": 3}


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_one_changed_bit_is_noticed(saved, data):
    whole = saved.read_bytes()
    # The metadata, which tell what it is, have no checksum of their own, nor has the padding of the header.
    start = 8 + int.from_bytes(whole[:8], "little")
    place = data.draw(st.integers(start, len(whole) - 1))
    changed = bytearray(whole)
    changed[place] ^= 1 << data.draw(st.integers(0, 7))
    other = saved.with_name("other.safetensors")
    other.write_bytes(changed)
    with pytest.raises(InputError, match="damaged, its checksum"):
        weights.load_weights(other)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_truncated_and_garbled_headers_are_refused_in_one_line(saved, data):
    whole = saved.read_bytes()
    length = data.draw(st.integers(0, len(whole) - 1))
    other = saved.with_name("other.safetensors")
    other.write_bytes(whole[:length])
    with pytest.raises(InputError, match=r"other\.safetensors: not a readable") as caught:
        weights.load_weights(other)
    assert "\n" not in str(caught.value)
    garbled = bytearray(whole)
    garbled[data.draw(st.integers(0, 40))] = data.draw(st.integers(0, 255))
    other.write_bytes(garbled)
    # Some bytes of a header may change and leave it valid; anything else than this error fails here.
    with contextlib.suppress(InputError):
        weights.load_network(other)


class TestRefused:
    def test_missing(self, tmp_path):
        with pytest.raises(InputError, match=r"none\.safetensors: no such file"):
            weights.load_weights(tmp_path / "none.safetensors")

    def test_of_another_program(self, tmp_path):
        from safetensors.torch import save_file

        save_file({"a": torch.ones(3)}, tmp_path / "other.safetensors")
        tensors, about = weights.read_tensors(tmp_path / "other.safetensors")
        assert tensors["a"].tolist() == [1, 1, 1]
        assert about is None
        with pytest.raises(InputError, match="no weights of exitwave"):
            weights.load_weights(tmp_path / "other.safetensors")

    def test_of_no_network_or_of_another(self, tmp_path, saved):
        path = weights.save_weights(tmp_path / "linear.safetensors", torch.nn.Linear(2, 2), {})
        with pytest.raises(InputError, match="unknown network None"):
            weights.load_network(path)
        tensors, about = weights.read_tensors(saved)
        about["architecture"]["width"] = 8
        weights.write_tensors(path, tensors, about)
        with pytest.raises(InputError, match="do not fit UNet"):
            weights.load_network(path)

    @pytest.mark.parametrize("value", [1e6, float("nan")])
    def test_what_half_precision_cannot_hold(self, tmp_path, value):
        network = torch.nn.Linear(2, 2)
        torch.nn.init.constant_(network.bias, value)
        with pytest.raises(InputError, match="bias is not finite in float16"):
            weights.save_weights(tmp_path / "w.safetensors", network, {})
        assert not list(tmp_path.iterdir())

    def test_a_failed_write_leaves_the_old_file(self, saved, monkeypatch):
        before = saved.read_bytes()
        with pytest.raises(ValueError, match="JSON"):
            weights.write_tensors(saved, {"a": torch.ones(2)}, {"loss": float("nan")})

        def refuse(temporary, path):
            assert temporary.exists()
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("exitwave.files.os.replace", refuse)
        with pytest.raises(OSError, match=r"No space left on device: .*some\.safetensors"):
            weights.write_tensors(saved, {"a": torch.ones(2)}, {})
        assert saved.read_bytes() == before
        assert list(saved.parent.iterdir()) == [saved]
