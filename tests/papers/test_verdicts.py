"""The claims of all papers load, and the rules that judge them do what they say."""

import math
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from exitwave.chapters.project import trains
from exitwave.errors import InputError
from exitwave.papers import verdicts
from exitwave.papers.verdicts import PAPERS, Claim, PaperClaims, judge, load_claims, margin

NUMBER_OF_CLAIMS = {"ede2020": 19, "larsen2022": 19, "cao2020": 8, "zhou2020": 16, "webb2025": 12}

ROOT = Path(__file__).parents[2]


def stored(samples=None, **quantities):
    """Return what `reproduce` stores: quantities along ``seed``."""
    found = xr.Dataset({name: ("seed", np.asarray(values, float)) for name, values in quantities.items()})
    return found if samples is None else found.assign(samples=("seed", samples))


def value_claim(value=1.0, **changed):
    values = value if isinstance(value, list) else [value]
    rules = {"quantities": [f"q{i}" for i in range(len(values))], "min_samples": 1, "run": "r"} | changed
    return Claim(id="c", where="w", kind=rules.pop("kind", "value"), statement="s", value=value, **rules)


def order_claim(*inequalities, **changed):
    rules = {"min_samples": 3, "run": "r"} | changed
    return Claim(id="c", where="w", kind="order", statement="s", inequalities=list(inequalities), **rules)


class TestClaims:
    @pytest.mark.parametrize("paper", PAPERS)
    def test_load(self, paper):
        claims = load_claims(paper).claims
        assert len(claims) == NUMBER_OF_CLAIMS[paper]
        assert all(claim.statement and claim.where for claim in claims)
        prefixes = {claim.id.split("-")[0] for claim in claims}
        assert len(prefixes) == 1
        assert paper.startswith(prefixes.pop())

    def test_each_has_an_id_of_its_own(self):
        ids = [claim.id for paper in PAPERS for claim in load_claims(paper).claims]
        assert len(ids) == len(set(ids)) == 74

    def test_every_run_is_used_and_has_seeds_enough(self):
        for paper in PAPERS:
            claims = load_claims(paper)
            used = {name for claim in claims.claims for name in (*claim.runs, *claim.tried)}
            assert used <= set(claims.runs)
            # What no claim reads is there for the chapter.
            for name in set(claims.runs) - used:
                assert f'"{name}"' in (ROOT / "notebooks" / f"{paper}.py").read_text(encoding="utf-8")
            for claim in claims.claims:
                if claim.run is not None:
                    assert claims.runs[claim.run].seeds >= verdicts.MIN_SEEDS

    def test_what_is_released_is_trained_and_what_is_used_is_released(self):
        for paper in PAPERS:
            runs = load_claims(paper).runs
            for run in runs.values():
                assert not run.release or trains(paper, run.study)
                if network := run.settings.get("network"):
                    assert run.seeds <= runs[network].release
        with pytest.raises(ValidationError, match="releases 2 networks of 1 seeds"):
            verdicts.Run(study="s", settings={}, seeds=1, release=2)

    def test_costs_are_not_computed_again(self):
        for paper in PAPERS:
            for claim in load_claims(paper).claims:
                assert claim.timed or claim.run is None or claim.kind != "ratio", claim.id

    def test_unknown_paper(self):
        with pytest.raises(InputError, match="unknown paper 'zhou2021': use one of ede2020"):
            load_claims("zhou2021")

    def test_rules_are_required_of_a_claim_with_a_run(self):
        with pytest.raises(ValidationError, match="one quantity for each value"):
            value_claim([1.0, 2.0], quantities=["a"])
        with pytest.raises(ValidationError, match="one quantity for each value"):
            Claim(id="c", where="w", kind="ratio", statement="s", run="r", quantities=["a"])
        with pytest.raises(ValidationError, match="needs inequalities"):
            order_claim()
        with pytest.raises(ValidationError, match="extra"):
            value_claim(tolerence=0.1)

    def test_a_run_that_is_not_there(self):
        with pytest.raises(ValidationError, match="no run 'r'"):
            PaperClaims(claims=[value_claim()])
        run = {"study": "s", "settings": {}, "seeds": 3}
        assert PaperClaims(claims=[value_claim()], runs={"r": run})
        with pytest.raises(ValidationError, match="no run 'other'"):
            PaperClaims(claims=[value_claim(sensitivity=["other"])], runs={"r": run})
        with pytest.raises(ValidationError, match="no run 'other'"):
            PaperClaims(claims=[value_claim(sensitivity=[{"r": "other"}])], runs={"r": run})

    def test_what_a_trial_puts_in_place_of_what(self):
        claim = value_claim(sensitivity=["x", {"s": "y", "r": "x"}], also={"second": "s"})
        assert claim.trials == [{"r": "x"}, {"s": "y", "r": "x"}]
        assert claim.tried == ["x", "y"]
        runs = {name: {"study": "s", "settings": {}, "seeds": 3} for name in "rsxy"}
        assert PaperClaims(claims=[claim], runs=runs)
        stranger = value_claim(sensitivity=[{"second": "x"}], also={"second": "s"})
        with pytest.raises(ValidationError, match="reads no run 'second' that another could stand for"):
            PaperClaims(claims=[stranger], runs=runs)


class TestInequalities:
    @pytest.mark.parametrize("text", ["a > b", "a>b", " a < b ", "a < 0.5", "a > -1e-3", "a_1 > b_2"])
    def test_can_be_read(self, text):
        assert order_claim(text).inequalities == [text]

    @pytest.mark.parametrize(
        "text", ["a", "a >", "> b", "a = b", "a >= b", "a > b > c", "a b > c", "", "a - b > 0"]
    )
    def test_cannot_be_read(self, text):
        with pytest.raises(ValidationError, match="cannot read the inequality"):
            order_claim(text)

    def test_margin_is_positive_where_it_holds(self):
        result = stored(a=[2, 3, 4], b=[1, 1, 1])
        mean, low, high = margin("a > b", result)
        assert mean == pytest.approx(2.0)
        assert 0 < low <= mean <= high
        assert margin("a < b", result) == pytest.approx((-mean, -high, -low))
        assert margin("a > 2.5", result)[0] == pytest.approx(0.5)
        assert margin("a < -2.5", result)[0] == pytest.approx(-5.5)

    def test_pairs_are_seeds(self):
        # Each seed differs by 1; the spread between seeds is far larger and must not count.
        base = np.array([0.0, 100.0, -300.0, 50.0])
        mean, low, high = margin("a > b", stored(a=base + 1, b=base))
        assert (mean, low, high) == pytest.approx((1.0, 1.0, 1.0))

    def test_unknown_quantity(self):
        for text in ("a > b", "b > a"):
            with pytest.raises(InputError, match="no quantity 'b'"):
                margin(text, stored(a=[1, 2, 3]))

    def test_no_interval_without_two_seeds_or_of_values_that_are_none(self):
        mean, low, high = margin("a > b", stored(a=[2], b=[1]))
        assert mean == 1.0
        assert math.isnan(low)
        assert math.isnan(high)
        assert all(math.isnan(each) for each in margin("a > 0", stored(a=[1, 2, np.nan])))


class TestValues:
    @pytest.mark.parametrize(
        ("measured", "better", "verdict"),
        [
            (1.0, None, "reproduced"),
            (1.09, None, "reproduced"),
            (0.91, "high", "reproduced"),
            (1.05, "high", "reproduced"),  # better, but within the tolerance
            (1.2, None, "not reproduced"),
            (1.2, "high", "exceeded"),
            (1.2, "low", "not reproduced"),
            (0.8, "high", "not reproduced"),
            (0.8, "low", "exceeded"),
            (math.nan, "high", "not reproduced"),
            (math.nan, "low", "not reproduced"),
        ],
    )
    def test_tolerance_and_side(self, measured, better, verdict):
        assert judge(value_claim(1.0, better=better), stored(q0=[measured])) == verdict

    def test_tolerance_is_relative_and_its_size_is_the_claim_s(self):
        for factor in (0.01, 100.0, -3.0):
            assert judge(value_claim(factor), stored(q0=[1.09 * factor])) == "reproduced"
            assert judge(value_claim(factor), stored(q0=[1.11 * factor])) == "not reproduced"
            assert judge(value_claim(factor, tolerance=0.2), stored(q0=[1.11 * factor])) == "reproduced"

    def test_the_mean_over_seeds_is_judged(self):
        assert judge(value_claim(1.0), stored(q0=[0.0, 2.0, 1.0])) == "reproduced"

    @pytest.mark.parametrize(
        ("measured", "verdict"),
        [
            ((1.0, 2.0), "reproduced"),
            ((1.0, 9.0), "partly"),
            ((9.0, 2.0), "partly"),
            ((9.0, 9.0), "not reproduced"),
            ((0.5, 1.0), "exceeded"),
            ((0.5, 2.0), "reproduced"),  # not exceeded in all
            ((0.5, 9.0), "partly"),
        ],
    )
    def test_several_values(self, measured, verdict):
        claim = value_claim([1.0, 2.0], better="low")
        assert judge(claim, stored(q0=[measured[0]], q1=[measured[1]])) == verdict

    def test_ratio_is_judged_alike(self):
        assert judge(value_claim(10.0, kind="ratio", better="high"), stored(q0=[30.0])) == "exceeded"

    @given(
        st.floats(0.01, 100),
        st.lists(st.floats(0.01, 100), min_size=1, max_size=6),
        st.sampled_from([None, "high", "low"]),
    )
    def test_rule(self, value, measured, better):
        mean = float(np.mean(measured))
        found = judge(value_claim(value, better=better), stored(q0=measured))
        near = abs(mean - value) <= 0.1 * value
        on_the_better_side = {"high": mean > value, "low": mean < value, None: False}[better]
        assert found == ("reproduced" if near else "exceeded" if on_the_better_side else "not reproduced")


class TestOrder:
    def test_holds(self):
        assert judge(order_claim("a > b"), stored(a=[2, 3, 4], b=[1, 1, 1])) == "reproduced"

    def test_fails(self):
        assert judge(order_claim("a < b"), stored(a=[2, 3, 4], b=[1, 1, 1])) == "not reproduced"

    def test_the_mean_alone_is_not_enough(self):
        result = stored(a=[10, -1, -2], b=[0, 0, 0])
        assert margin("a > b", result)[0] > 0
        assert judge(order_claim("a > b"), result) == "not reproduced"

    def test_no_difference_does_not_hold(self):
        assert judge(order_claim("a > b"), stored(a=[1, 1, 1], b=[1, 1, 1])) == "not reproduced"

    def test_some_hold(self):
        result = stored(a=[2, 3, 4], b=[1, 1, 1])
        assert judge(order_claim("a > b", "a > 100"), result) == "partly"
        assert judge(order_claim("a > b", "a < 100"), result) == "reproduced"

    def test_missing_values_do_not_hold(self):
        assert judge(order_claim("a > b"), stored(a=[2, 3, np.nan], b=[1, 1, 1])) == "not reproduced"

    @given(
        st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=3, max_size=8),
        st.sampled_from(["a > b", "a < b"]),
    )
    def test_one_side_at_most(self, pairs, text):
        a, b = zip(*pairs, strict=True)
        turned = "a < b" if text == "a > b" else "a > b"
        found = {judge(order_claim(each), stored(a=a, b=b)) for each in (text, turned)}
        assert found != {"reproduced"}
        if min(x - y for x, y in pairs) > 1e-9:
            assert judge(order_claim("a > b"), stored(a=a, b=b)) == "reproduced"


class TestNotRun:
    @pytest.mark.parametrize("seeds", [1, 2])
    def test_an_order_needs_three_seeds(self, seeds):
        claim = order_claim("a > b", min_samples=1)
        assert judge(claim, stored(a=[2.0] * seeds, b=[1.0] * seeds)) == "not run"
        assert judge(claim, stored(a=[2.0] * 3, b=[1.0] * 3)) == "reproduced"

    def test_too_few_samples(self):
        claim = value_claim(1.0, min_samples=200)
        assert judge(claim, stored(q0=[1.0] * 5)) == "not run"
        assert judge(claim, stored(samples=[100, 99], q0=[1.0] * 2)) == "not run"
        assert judge(claim, stored(samples=[100, 100], q0=[1.0] * 2)) == "reproduced"

    def test_samples_are_summed_else_seeds(self):
        assert verdicts.count_samples(stored(samples=[3, 4], a=[1, 2])) == 7
        assert verdicts.count_samples(stored(a=[1, 2, 3])) == 3
        assert verdicts.count_samples(xr.Dataset()) == 0

    def test_nothing_stored(self):
        assert judge(value_claim(1.0), xr.Dataset()) == "not run"


def test_means_are_over_seeds():
    assert dict(verdicts.means(["a", "b"], stored(a=[1, 3], b=[0, 1], c=[9, 9]))) == {"a": 2.0, "b": 0.5}


def test_verdicts_are_those_of_the_design():
    expected = {"exceeded", "reproduced", "partly", "not reproduced", "not run", "waived", "stale"}
    assert set(get_args(verdicts.Verdict)) == expected
