"""The claims ledger: verdicts from stored results, as tables and as JSON."""

import re

import numpy as np
import pytest
import xarray as xr

from exitwave import records
from exitwave.chapters import ledger, reproduce
from exitwave.chapters.project import study_of
from exitwave.chapters.sources import source_hash
from exitwave.papers.parameters import SCALES
from exitwave.papers.verdicts import PAPERS, Claim, PaperClaims, load_claims
from exitwave.papers.zhou2020.parameters import Parameters

KEYS = ["id", "paper", "scale", "claimed", "measured", "unit", "verdict", "samples", "seeds", "source"]


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("EXITWAVE_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def mentioned(run):
    """Return the quantities that claims read from a run."""
    claims = [c for c in load_claims("zhou2020").claims if run in (c.run, *c.tried)]
    compared = {
        word for c in claims for text in c.inequalities for word in text.split() if word.isidentifier()
    }
    return compared | {name for c in claims for name in c.quantities + c.beside}


def store(run, scale="smoke", seeds=5, changed=None, **means):
    """Store made-up results as `exitwave reproduce` would, spread a little over the seeds."""
    found = load_claims("zhou2020").runs[run]
    values = dict.fromkeys(sorted(mentioned(run)), 0.5) | means
    attrs = {"units": "1", "long_name": "made up"}
    spread = 1e-3 * np.arange(seeds)
    spread = spread - spread.mean()
    record = xr.Dataset(
        {name: ("seed", value + spread * value, attrs) for name, value in values.items()},
        {"seed": ("seed", np.arange(seeds), attrs)},
    )
    parameters = Parameters.at(scale, **found.settings)
    made = {
        "parameters": parameters.model_dump() | (changed or {}),
        "files": parameters.digests(),
        "source": source_hash(study_of("zhou2020", found.study)),
    }
    path = reproduce.run_file("zhou2020", scale, run)
    return records.save(records.with_provenance(record, made), path)


def row(claim, scale="smoke"):
    [found] = [each for each in ledger.ledger(["zhou2020"], [scale]) if each.claim.id == claim]
    return found


def cells(line):
    """Split a row of a Markdown table at the bars that are not escaped."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


class TestRows:
    def test_one_for_each_claim_and_scale(self):
        rows = [each.as_json() for each in ledger.ledger()]
        assert len(rows) == 74 * 4
        assert len({(each["id"], each["scale"]) for each in rows}) == 74 * 4
        assert {each["paper"] for each in rows} == set(PAPERS)
        assert {each["scale"] for each in rows} == set(SCALES)

    def test_json_has_these_keys_in_this_order(self):
        store("moderate-clean")
        store("moderate-noise", changed={"noise": 0.3})
        for each in ledger.ledger():
            assert list(each.as_json()) == KEYS

    def test_nothing_stored_is_not_run(self):
        rows = ledger.ledger()
        # But for what was waived beforehand, with a reason.
        for each in rows:
            assert each.verdict == ("waived" if each.scale in each.claim.waiver else "not run")
        assert {(each.samples, each.seeds, each.source) for each in rows} == {(0, 0, None)}
        counts = ledger.counts(rows)
        assert counts["not run"] + counts["waived"] == len(rows) > counts["waived"]

    def test_a_value(self):
        store("moderate-noise", tie_accuracy=0.55)
        found = row("zhou-tie-moderate-noise").as_json()
        assert found["verdict"] == "reproduced"
        assert found["claimed"] == 0.5678
        assert found["measured"] == pytest.approx([0.55])
        assert (found["samples"], found["seeds"]) == (5, 5)
        assert found["source"] == "data/zhou2020/smoke/moderate-noise.nc"

    def test_a_value_that_is_off(self):
        store("moderate-noise", tie_accuracy=0.9)
        assert row("zhou-tie-moderate-noise").verdict == "not reproduced"

    def test_an_order(self):
        store("moderate-clean", tie_correlation=0.9, gradient_correlation=0.2)
        found = row("zhou-tie-moderate-clean")
        assert found.verdict == "reproduced"
        assert found.as_json()["claimed"] == ["tie_correlation > gradient_correlation"]
        assert found.as_json()["measured"] == pytest.approx([0.9, 0.2])
        mean, low, high = found.margins["tie_correlation > gradient_correlation"]
        assert low <= mean <= high
        assert mean == pytest.approx(0.7)
        assert set(found.beside) == {
            "tie_accuracy", "gradient_accuracy", "constant_accuracy", "negated_accuracy", "fit_correlation",
        }  # fmt: skip

    def test_half_an_order_is_partly(self):
        store(
            "strong-clean",
            gradient_correlation=0.9,
            tie_correlation=0.2,
            gradient_resolution=90,
            tie_resolution=50,
        )
        assert row("zhou-ad-strong-clean").verdict == "partly"

    def test_a_changed_setting_has_its_own_verdict(self):
        low = {"tie_correlation": 0.5, "tie_resolution": 50.0}
        store("strong-clean", gradient_correlation=0.2, gradient_resolution=90.0, **low)
        assert row("zhou-ad-strong-clean").sensitivity == {}
        store("strong-clean-gentle", gradient_correlation=0.9, gradient_resolution=20.0, **low)
        found = row("zhou-ad-strong-clean")
        assert found.verdict == "not reproduced"
        assert found.sensitivity == {"strong-clean-gentle": "reproduced"}
        assert "strong-clean-gentle`: reproduced" in ledger.measured_text(found)

    def test_other_scales_are_not_touched(self):
        store("moderate-noise", tie_accuracy=0.55)
        assert row("zhou-tie-moderate-noise", "workshop").verdict == "not run"

    def test_too_few_seeds_are_not_run(self):
        for seeds in (1, 2):
            store("moderate-clean", seeds=seeds, tie_correlation=0.9, gradient_correlation=0.2)
            assert row("zhou-tie-moderate-clean").verdict == "not run"

    def test_a_missing_value_does_not_hold_and_does_not_break_the_ledger(self):
        store("strong-clean", gradient_correlation=0.9, tie_correlation=0.2, gradient_resolution=np.nan)
        assert row("zhou-ad-strong-clean").verdict == "partly"

    def test_a_file_stored_again_is_read_again(self):
        store("moderate-noise", tie_accuracy=0.55)
        assert row("zhou-tie-moderate-noise").verdict == "reproduced"
        store("moderate-noise", tie_accuracy=0.9)
        assert row("zhou-tie-moderate-noise").verdict == "not reproduced"


class TestStale:
    def test_after_a_change_of_parameters(self):
        store("moderate-noise", tie_accuracy=0.55, changed={"noise": 0.05})
        found = row("zhou-tie-moderate-noise")
        assert found.verdict == "stale"
        assert found.as_json()["measured"] is None
        assert found.seeds == 5

    def test_after_a_change_of_source(self, monkeypatch):
        store("moderate-noise", tie_accuracy=0.55)
        monkeypatch.setattr(reproduce, "source_hash", lambda _: "another source")
        assert row("zhou-tie-moderate-noise").verdict == "stale"

    def test_a_sensitivity_too(self):
        store("strong-clean")
        store("strong-clean-gentle", changed={"rate": 0.2})
        assert row("zhou-ad-strong-clean").sensitivity == {"strong-clean-gentle": "stale"}


class TestSeveralRuns:
    """A claim that compares runs."""

    @pytest.fixture(autouse=True)
    def claim(self, monkeypatch):
        claims = load_claims("zhou2020")
        claim = Claim(
            id="c", where="w", kind="order", statement="s", run="moderate-clean",
            also={"noisy": "moderate-noise"}, beside=["noisy_tie_accuracy"],
            inequalities=["tie_correlation > noisy_tie_accuracy"],
        )  # fmt: skip
        monkeypatch.setattr(ledger, "load_claims", lambda _: PaperClaims(claims=[claim], runs=claims.runs))

    def test_reads_the_further_run_by_its_name(self):
        store("moderate-clean", tie_correlation=0.9)
        assert row("c").verdict == "not run"
        store("moderate-noise", tie_accuracy=0.55)
        found = row("c")
        assert found.verdict == "reproduced"
        assert found.beside == {"noisy_tie_accuracy": pytest.approx(0.55)}
        store("moderate-noise", tie_accuracy=0.95)
        assert row("c").verdict == "not reproduced"

    def test_is_stale_with_any_of_them(self):
        store("moderate-clean", tie_correlation=0.9)
        store("moderate-noise", tie_accuracy=0.55, changed={"noise": 0.05})
        assert row("c").verdict == "stale"


class TestTrials:
    """Sensitivity tests of a claim that compares runs."""

    @pytest.fixture(autouse=True)
    def claim(self, monkeypatch):
        claims = load_claims("zhou2020")
        claim = Claim(
            id="c", where="w", kind="order", statement="s", run="strong-clean", also={"other": "hybrid4"},
            inequalities=["gradient_correlation > other_gradient_correlation"],
            sensitivity=[
                "strong-clean-gentle", {"hybrid4": "hybrid4-gentle"},
                {"strong-clean": "strong-clean-gentle", "hybrid4": "hybrid4-gentle"},
            ], untested="needs patience",
        )  # fmt: skip
        monkeypatch.setattr(ledger, "load_claims", lambda _: PaperClaims(claims=[claim], runs=claims.runs))
        store("strong-clean", gradient_correlation=0.5)
        store("hybrid4", gradient_correlation=0.6)

    def test_put_a_run_in_place_of_another_and_leave_the_rest(self):
        assert row("c").sensitivity == {}
        store("strong-clean-gentle", gradient_correlation=0.8)
        assert row("c").sensitivity == {"strong-clean-gentle": "reproduced"}
        store("hybrid4-gentle", gradient_correlation=0.9)
        found = row("c")
        assert found.verdict == "not reproduced"
        assert found.sensitivity == {
            "strong-clean-gentle": "reproduced",  # 0.8 > 0.6
            "hybrid4-gentle": "not reproduced",  # 0.5 < 0.9
            "strong-clean-gentle, hybrid4-gentle": "not reproduced",  # 0.8 < 0.9
        }
        assert "as `strong-clean-gentle`, `hybrid4-gentle`: not reproduced" in ledger.measured_text(found)
        store("hybrid4-gentle", gradient_correlation=0.4)
        assert set(row("c").sensitivity.values()) == {"reproduced"}

    def test_are_stale_with_any_of_their_runs(self):
        store("strong-clean-gentle", gradient_correlation=0.8)
        store("hybrid4-gentle", gradient_correlation=0.9, changed={"rate": 0.2})
        assert list(row("c").sensitivity.values()) == ["reproduced", "stale", "stale"]

    def test_that_are_wanting_are_said_where_a_row_asks_why(self):
        assert "reason not tested: needs patience" in ledger.measured_text(row("c"))
        store("strong-clean", gradient_correlation=0.7)
        assert row("c").verdict == "reproduced"
        assert "needs patience" not in ledger.measured_text(row("c"))


def test_every_stored_row_that_is_not_reproduced_is_asked_why(monkeypatch):
    monkeypatch.delenv("EXITWAVE_DATA")
    monkeypatch.setattr(ledger, "is_stale", lambda *_: False)  # `exitwave claims` looks at that
    failed = [each for each in ledger.ledger(scales=["workshop"]) if each.verdict == "not reproduced"]
    assert failed
    for each in failed:
        # Of every test that is named there is a result; where none is named, it is said what it would need.
        assert len(each.sensitivity) == len(each.claim.sensitivity), each.claim.id
        assert each.sensitivity or each.claim.untested, each.claim.id
        assert "not run" not in each.sensitivity.values(), (each.claim.id, each.sensitivity)


class TestWaived:
    def test_at_its_scale_only_with_the_reason(self, monkeypatch):
        claim = Claim(
            id="c", where="w", kind="value", statement="s", value=1.0, waiver={"paper": "needs 90 GPU hours"}
        )
        monkeypatch.setattr(ledger, "load_claims", lambda _: PaperClaims(claims=[claim]))
        rows = ledger.ledger(["zhou2020"])
        assert [each.verdict for each in rows] == ["not run", "not run", "not run", "waived"]
        assert ledger.measured_text(rows[-1]) == "needs 90 GPU hours"
        assert "needs 90 GPU hours" in ledger.markdown(rows)


class TestMarkdown:
    def test_every_row_has_three_cells(self):
        store("moderate-clean", tie_correlation=0.9, gradient_correlation=0.2)
        store("strong-clean")
        store("strong-clean-gentle")
        lines = ledger.markdown(ledger.ledger()).splitlines()
        table = [line for line in lines if line.startswith("|")]
        assert len(table) == 74 * 4 + 2 * len(PAPERS)
        assert {len(cells(line)) for line in table} == {3}
        assert [line for line in lines if line.startswith("#")] == [f"## {paper}" for paper in PAPERS]

    def test_one_paper_has_no_heading(self):
        assert "#" not in ledger.markdown(ledger.ledger(["cao2020"], ["smoke"]))

    def test_signs_of_markdown_are_escaped(self, monkeypatch):
        statement = "|a| < b | ~half~ of $5 to $6"
        claim = Claim(id="c", where="Fig. 1 | 2", kind="figure", statement=statement)
        monkeypatch.setattr(ledger, "load_claims", lambda _: PaperClaims(claims=[claim]))
        line = ledger.markdown(ledger.ledger(["zhou2020"], ["smoke"])).splitlines()[2]
        found = cells(line)
        assert len(found) == 3
        assert found[0] == r"`c` Fig. 1 \| 2: \|a\| &lt; b \| \~half\~ of \$5 to \$6"

    def test_shows_value_verdict_and_sample_size(self):
        store("moderate-noise", tie_accuracy=0.55)
        [line] = [
            x for x in ledger.markdown(ledger.ledger(["zhou2020"], ["smoke"])).splitlines() if "0.5678" in x
        ]
        claim, verdict, measured = cells(line)
        assert claim.startswith("`zhou-tie-moderate-noise` Fig. 3b: ")
        assert "**0.5678**" in claim
        assert verdict == "**reproduced** (smoke)"
        assert "tie accuracy 0.55" in measured
        assert "(5 samples, 5 seeds)" in measured

    def test_counts_add_up(self):
        store("moderate-noise", tie_accuracy=0.55)
        rows = ledger.ledger()
        found = dict(cells(line) for line in ledger.counts_markdown(rows).splitlines()[2:])
        assert found["reproduced"] == "1"
        assert int(found["not run"]) + int(found["waived"]) == 74 * 4 - 1
        assert found["all"] == str(74 * 4)
        assert sum(int(number) for name, number in found.items() if name != "all") == 74 * 4
