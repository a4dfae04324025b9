"""Parameter models: presets, refusals in one line, and the hash that names runs."""

import math
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from exitwave.errors import InputError
from exitwave.papers.parameters import SCALES, PaperParameters
from exitwave.papers.zhou2020.parameters import MILLIMETRE, Parameters


class Small(PaperParameters):
    presets: ClassVar = {"smoke": {"steps": 2}}

    steps: int = Field(500, ge=1)
    dose: float = Field(1.5, gt=0)
    limit: float = 1.0
    gain: str = "low"


def refused(match, **values):
    with pytest.raises(InputError, match=match) as error:
        Parameters.at(**{"scale": "smoke"} | values)
    assert "\n" not in str(error.value)
    assert "pydantic" not in str(error.value)
    return str(error.value)


class TestScales:
    def test_names(self):
        assert SCALES == ("smoke", "workshop", "gpu", "paper")

    def test_a_preset_changes_what_it_names_only(self):
        smoke, paper = Small.at("smoke"), Small.at("paper")
        assert (smoke.steps, smoke.dose, smoke.scale) == (2, 1.5, "smoke")
        assert (paper.steps, paper.dose, paper.scale) == (500, 1.5, "paper")

    def test_what_is_given_beats_the_preset(self):
        assert Small.at("smoke", steps=7).steps == 7

    def test_none_means_not_given(self):
        assert Small.at("smoke", steps=None, dose=None) == Small.at("smoke")

    def test_collect_takes_the_parameters_of_a_notebook_alone(self):
        namespace = {"scale": "smoke", "steps": None, "dose": 3.0, "np": np, "other": 5}
        assert Small.collect(namespace) == Small.at("smoke", dose=3.0)

    def test_changed_is_checked_and_leaves_the_original(self):
        first = Small.at("smoke")
        second = first.changed(dose=2.0)
        assert (first.dose, second.dose, second.steps, second.scale) == (1.5, 2.0, 2, "smoke")
        with pytest.raises(InputError, match="dose=-1"):
            first.changed(dose=-1.0)
        with pytest.raises(InputError, match="did you mean 'dose'"):
            first.changed(dosee=1.0)

    def test_values_cannot_be_set(self):
        with pytest.raises(ValueError, match="frozen"):
            Small.at("smoke").dose = 2.0

    @pytest.mark.parametrize("scale", SCALES)
    def test_every_scale_of_the_paper(self, scale):
        found = Parameters.at(scale)
        assert found.scale == scale
        assert (found.energy, found.rate) == (200e3, 1.0)
        if scale in ("workshop", "paper"):
            # Zhou 2020, Methods: 512 x 512 pixels, 5000 steps; the least size at workshop scale too.
            assert (found.pixels, found.iterations) == (512, 5000)


class TestRefusals:
    def test_scale(self):
        refused(r"unknown scale 'huge': use one of smoke, workshop, gpu, paper", scale="huge")

    @pytest.mark.parametrize(
        ("wrong", "meant"),
        [("nois", "noise"), ("iteration", "iterations"), ("magnetization", "magnetisation")],
    )
    def test_misspelt_name_with_what_was_meant(self, wrong, meant):
        refused(f"unknown parameter '{wrong}': did you mean '{meant}'", **{wrong: 1})

    def test_name_unlike_any_lists_all(self):
        message = refused("unknown parameter 'zzz': use one of", zzz=1)
        assert all(name in message for name in Parameters.model_fields)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("noise", "abc"),
            ("noise", -0.1),
            ("noise", 1.5),
            ("pixels", 12.5),
            ("pixels", 64.0),
            ("pixels", "64"),
            ("pixels", 1),
            ("pixels", True),
            ("seed", -1),
            ("energy", 0.0),
            ("energy", math.nan),
            ("sampling", -5.0),
            ("images", 0),
            ("focus", "weak"),
            ("magnetisation", 3),
            ("rate", 0.0),
        ],
    )
    def test_type_and_range_name_the_parameter_and_the_value(self, name, value):
        message = refused(f"parameter {name}=", **{name: value})
        assert repr(value) in message

    def test_a_rule_of_the_model_shows_what_was_given_and_no_more(self):
        message = refused("images=3.*even", images=3)
        assert "pixels" not in message

    def test_noise_is_a_number(self):
        refused("noise", noise=math.nan)


class TestKey:
    def test_is_short_and_lasting(self):
        key = Small.at("smoke").key("more")
        assert len(key) == 16
        assert int(key, 16) >= 0
        # A run's file is found again by this name: it must not change from one version to the next.
        assert Small.at("smoke").key() == "918f74b990526856"

    @given(st.floats(0.1, 10), st.floats(0.1, 10))
    def test_equal_values_alone_have_equal_keys(self, one, two):
        keys = Small.at(dose=one).key(), Small.at(dose=two).key()
        assert (keys[0] == keys[1]) == (one == two)

    def test_every_value_and_every_further_string_counts(self):
        base = Small.at("smoke")
        keys = [
            base.key(),
            base.changed(seed=1).key(),
            base.changed(gain="high").key(),
            base.changed(steps=3).key(),
            base.changed(limit=math.inf).key(),
            base.changed(limit=-math.inf).key(),
            Small.at("gpu", steps=2).key(),
            base.key("study"),
            base.key("study", "source"),
        ]
        assert len(set(keys)) == len(keys)

    def test_a_network_counts_where_it_is_named_and_by_its_weights(self, tmp_path, monkeypatch):
        class Using(Small):
            network: str = Field("", json_schema_extra={"network_of": "p"})

        monkeypatch.setenv("EXITWAVE_DATA", str(tmp_path))
        assert Using.at("smoke").key() == Small.at("smoke").key()  # as if there were no such field
        named = Using.at("smoke", network="some")
        keys = [Using.at("smoke").key(), Using.at("smoke", network="other").key()]
        for seed, content in ((0, b"1"), (0, b"2"), (1, b"1")):
            keys.append(named.key())
            (tmp_path / "p" / "weights").mkdir(parents=True, exist_ok=True)
            (tmp_path / "p" / "weights" / f"some-{seed}.safetensors").write_bytes(content)
        keys.append(named.key())
        assert len(set(keys)) == len(keys)
        assert list(named.digests()) == ["some-0.safetensors", "some-1.safetensors"]

    def test_a_whole_number_is_the_same_value(self):
        assert Small.at(dose=2).key() == Small.at(dose=2.0).key()


class TestDefocus:
    @pytest.mark.parametrize(
        ("focus", "images", "millimetres"),
        [
            ("moderate", 2, [-0.15, 0.15]),
            ("strong", 2, [-1.6, 1.6]),
            ("hybrid", 2, [-0.15, 1.6]),
            ("hybrid", 4, [-0.1, -0.2, 1.5, 1.6]),
            ("moderate", 4, [-0.1, -0.2, 0.1, 0.2]),
        ],
    )
    def test_pairs_and_quartets_of_the_paper(self, focus, images, millimetres):
        found = Parameters.at(focus=focus, images=images).defocus
        np.testing.assert_allclose(found, np.array(millimetres) * MILLIMETRE, rtol=1e-12)

    @given(st.integers(1, 10), st.sampled_from(["moderate", "strong", "hybrid"]))
    def test_half_on_either_side(self, half, focus):
        found = np.array(Parameters.at(focus=focus, images=2 * half).defocus)
        assert len(set(found)) == len(found) == 2 * half
        assert (found[:half] < 0).all()
        assert (found[half:] > 0).all()
