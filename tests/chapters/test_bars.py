"""Bars are judged by what was measured; what was not has not been met."""

import json
import math

import holoviews as hv
import numpy as np
import pytest

from exitwave.chapters import bars, measuring, performance
from exitwave.chapters.bars import Bar, Measured, Row, judge
from exitwave.errors import InputError

FAST, SLOW = "test_a.py::test_fast", "test_a.py::test_slow"
RATIO = Bar(
    name="ratio", says="a ratio", chapter="zhou2020", measured=Row(benchmark=FAST),
    beside=[Row(benchmark=SLOW, program="abTEM")], least=2, aim=5,
)  # fmt: skip
SECONDS = Bar(name="seconds", says="s", chapter="book", measured=Row(benchmark=FAST), unit="s", most=2)


def measured(fast=1.0, slow=3.0, **more):
    numbers = {FAST: {"min": fast, "error": 0.1}, SLOW: {"min": slow, "error": 0.2}}
    return Measured({name: some for name, some in numbers.items() if some["min"] is not None}, **more)


def changed(bar, **values):
    return Bar(**(bar.model_dump() | values))


def peer(**values):
    return changed(RATIO, optional="quantem", **values)


class TestJudging:
    @pytest.mark.parametrize(
        ("slow", "verdict", "aimed"), [(1.99, "not met", False), (2, "met", False), (5, "met", True)]
    )
    def test_a_ratio_is_theirs_over_ours(self, slow, verdict, aimed):
        found = judge(RATIO, measured(1.0, slow))
        assert (found.verdict, found.value, found.counts) == (verdict, slow, verdict != "met")
        line = found.as_json({})
        assert (line["pass"], line["aim_met"]) == (verdict == "met", aimed)
        assert (line["exitwave"], line["beside"]) == (1.0, {"abTEM": slow})

    @pytest.mark.parametrize(("fast", "verdict"), [(2.0, "met"), (2.01, "not met")])
    def test_a_number_is_at_most_its_bar(self, fast, verdict):
        assert judge(SECONDS, measured(fast)).verdict == verdict

    def test_of_several_programs_the_fastest_counts(self):
        beside = [
            Row(benchmark=SLOW, program="abTEM"), Row(benchmark="test_b.py::test_b", program="temsim"),
            Row(benchmark=SLOW, program="py4DSTEM", factor=0.5),
        ]  # fmt: skip
        found = judge(changed(RATIO, beside=beside), measured(1.0, 3.0))
        assert (found.value, found.verdict) == (1.5, "not met")
        assert found.theirs == {"abTEM": 3.0, "py4DSTEM": 1.5}
        assert "without temsim" in found.note

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0.0])
    def test_what_is_no_number_is_not_measured(self, value):
        found = judge(RATIO, measured(value, 3.0))
        assert (found.verdict, found.counts) == ("not measured", True)
        assert found.as_json({})["pass"] is False
        if value != 0.0:
            assert judge(SECONDS, measured(value)).verdict == "not measured"
            assert judge(RATIO, measured(1.0, value)).verdict == "not measured"

    def test_a_benchmark_that_is_missing_fails_with_what_is_known(self):
        found = judge(SECONDS, measured(None))
        assert (found.verdict, found.counts) == ("not measured", True)
        assert found.note == f"{FAST} was not run"
        found = judge(SECONDS, measured(None, missing={FAST: "failed: AssertionError"}))
        assert found.note == "failed: AssertionError"
        found = judge(changed(SECONDS, measured={"benchmark": FAST, "field": "peak"}), measured())
        assert (found.verdict, found.note) == ("not measured", f"{FAST} gave no peak")

    def test_a_peer_that_is_not_installed_excuses_but_never_passes(self):
        lacking = measured(1.0, None, missing={SLOW: "no quantem"}, skipped=frozenset({SLOW}))
        found = judge(peer(), lacking)
        assert (found.verdict, found.counts, found.ours) == ("not measured", False, 1.0)
        assert found.note.startswith("needs quantem")
        assert found.as_json({})["pass"] is False
        assert judge(peer(), lacking, strict=True).counts
        # The bar must say that it may be lacking, and the benchmark that it was skipped.
        assert judge(RATIO, lacking).counts
        assert judge(peer(), measured(1.0, None, missing={SLOW: "failed: ValueError"})).counts

    def test_an_excuse_is_not_for_what_this_package_failed(self):
        failed = measured(None, 3.0, missing={FAST: "failed: ValueError"}, skipped=frozenset({SLOW}))
        assert judge(peer(), failed).counts

    def test_what_is_known_not_to_be_met_is_shown_as_not_met(self):
        known = changed(RATIO, known="because")
        found = judge(known, measured(1.0, 1.5))
        assert (found.verdict, found.note, found.counts) == ("known not met", "because", False)
        assert found.as_json({})["pass"] is False
        assert judge(known, measured(1.0, 1.5), strict=True).counts
        assert "the list says" in judge(known, measured(1.0, 3.0)).note
        # The excuse is for a bar that is not met, not for one that was not measured.
        assert judge(known, measured(None)).counts

    def test_faster_at_a_larger_error_is_not_met(self):
        equal = changed(RATIO, equal="error")
        assert judge(equal, measured()).verdict == "met"
        worse = Measured({FAST: {"min": 1.0, "error": 0.3}, SLOW: {"min": 3.0, "error": 0.2}})
        found = judge(equal, worse)
        assert (found.verdict, found.counts) == ("not met", True)
        assert "error 0.3 is not below 0.2" in found.note
        unknown = Measured({FAST: {"min": 1.0}, SLOW: {"min": 3.0, "error": 0.2}})
        assert judge(equal, unknown).verdict == "not met"

    def test_a_figure_without_a_bar_never_counts(self):
        shown = changed(RATIO, least=None, aim=None)
        assert judge(shown, measured(1.0, 0.5)).verdict == "no bar"
        absent = judge(shown, measured(None))
        assert (absent.verdict, absent.counts) == ("not measured", False)
        assert bars.summary([absent]).startswith("0 bars")

    def test_the_summary_names_what_failed(self):
        some = [judge(RATIO, measured(1.0, 1.0)), judge(SECONDS, measured())]
        assert bars.summary(some) == (
            "2 bars: 1 met, 1 not met, 0 known not met, 0 not measured; failed: ratio"
        )


class TestList:
    def test_bars_name_benchmarks_that_are_there(self, request):
        folder = request.config.rootpath / "tests" / "benchmarks"
        for bar in bars.known_bars():
            for row in bar.rows:
                file, *within = row.benchmark.split("[")[0].split("::")
                if file == "book":
                    continue
                text = (folder / file).read_text(encoding="utf-8")
                assert all(f"def {name}(" in text or f"class {name}" in text for name in within), row

    def test_chapters_are_pages_of_the_book(self, request):
        notebooks = {path.stem for path in (request.config.rootpath / "notebooks").glob("*.py")}
        assert {bar.chapter for bar in bars.known_bars()} <= notebooks | {"book"}

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("- {name: a, says: a, chapter: a, unit: s, measured: {benchmark: b}, least: 1, most: 2}", "two"),
            ("- {name: a, says: a, chapter: a, measured: {benchmark: b}}", "a ratio has rows"),
            ("- {name: a, says: a, chapter: a, unit: s, measured: {benchmark: b, factor: 0}}", "factor"),
            ("- {name: a, says: a, chapter: a, unit: s, measured: {benchmark: b}, top: 1}", "top"),
            ("- [", "cannot be read"),
        ],
    )  # fmt: skip
    def test_a_list_that_is_wrong_is_refused(self, text, said):
        with pytest.raises(InputError, match=said):
            bars.read_bars(text)

    def test_no_name_comes_twice(self):
        one = "- {name: a, says: a, chapter: a, unit: s, measured: {benchmark: b}}\n"
        with pytest.raises(InputError, match="one name: a"):
            bars.read_bars(one + one)

    def test_an_unknown_bar_is_named(self):
        with pytest.raises(InputError, match=r"no bar wave-90-deg: there are .*wave-0-deg"):
            bars.selected(["wave-90-deg"])


TIMES = {
    "benchmarks": [
        {"fullname": f"tests/benchmarks/{name}", "stats": {"min": 1.0, "median": 2.0, "max": 3.0},
         "extra_info": {"error": 0.5, "beam": "bright", "whole": True}}
        for name in (FAST, SLOW)
    ]
}  # fmt: skip


class TestReading:
    def read(self, **became):
        outcomes = {FAST: ["passed", ""], **{f"test_a.py::{n}": o for n, o in became.items()}}
        wanted = [FAST, SLOW, "test_a.py::test_gone"]
        found = {"outcomes": outcomes, "versions": {"torch": "2"}}
        return measuring.read_benchmarks(TIMES, found, wanted, "ended with status 3")

    def test_a_benchmark_that_failed_after_it_was_timed_gives_nothing(self):
        found = self.read(test_slow=["failed", "AssertionError: wrong"])
        assert found.numbers == {FAST: {"min": 1.0, "median": 2.0, "max": 3.0, "error": 0.5}}
        assert found.missing[SLOW] == "failed: AssertionError: wrong"
        assert found.skipped == frozenset()

    def test_one_that_was_skipped_and_one_that_never_ran_are_told_apart(self):
        found = self.read(test_slow=["skipped", "could not import 'quantem'"])
        assert found.missing == {
            SLOW: "could not import 'quantem'",
            "test_a.py::test_gone": "ended with status 3",
        }
        assert found.skipped == {SLOW}

    def test_without_outcomes_nothing_is_believed(self):
        found = measuring.read_benchmarks(TIMES, {}, [FAST], "killed")
        assert (dict(found.numbers), dict(found.missing)) == ({}, {FAST: "killed"})

    def test_numbers_come_back_from_their_file(self, tmp_path):
        written = Measured(
            {FAST: {"min": 1.23456, "gone": math.nan}}, {SLOW: "no"}, frozenset({SLOW}), {"machine": "µ"}
        )
        again = measuring.read(measuring.write(written, tmp_path / "a" / "b.json"))
        assert again.numbers[FAST]["min"] == 1.235
        assert math.isnan(again.numbers[FAST]["gone"])
        assert (again.missing, again.skipped, again.about) == ({SLOW: "no"}, {SLOW}, {"machine": "µ"})

    @pytest.mark.parametrize("text", ["", "[]", '{"numbers": {"a": 1}}', '{"numbers": {"a": {"min": "x"}}}'])
    def test_a_damaged_file_is_named(self, tmp_path, text):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(InputError, match=r"a\.json holds no numbers"):
            measuring.read(tmp_path / "a.json")

    def test_the_log_of_a_book_tells_how_long_each_chapter_took(self):
        said = (
            "zhou2020: running 30 cells\nzhou2020: done in 63 s\nbuilding the pages\nede2020: done in 7 s\n"
        )
        assert measuring.notebook_seconds(said) == {"zhou2020": 63.0, "ede2020": 7.0}

    def test_a_book_is_weighed(self, tmp_path):
        assert measuring.built_book(tmp_path).missing == {
            measuring.BUILT: "the book has not been built: make book"
        }
        (tmp_path / "index.html").write_bytes(b"a" * 400_000)
        (tmp_path / "_static").mkdir()
        (tmp_path / "_static" / "a.js").write_bytes(b"a" * 600_000)
        assert measuring.built_book(tmp_path).numbers == {measuring.BUILT: {"megabytes": 1.0}}


SOME = """
import pytest
def test_fast(benchmark):
    benchmark.extra_info["error"] = 0.5
    benchmark(lambda: None)
def test_wrong(benchmark):
    assert benchmark(lambda: 1) == 2
def test_lacking(benchmark):
    pytest.importorskip("no_such_peer")
def test_other(benchmark):
    raise SystemExit("is not asked for")
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory, request):
    """Measure a checkout with benchmarks that pass, fail, are skipped, and end the process."""
    root = tmp_path_factory.mktemp("checkout")
    folder = root / "tests" / "benchmarks"
    folder.mkdir(parents=True)
    here = request.config.rootpath / "tests" / "benchmarks"
    (folder / "conftest.py").write_bytes((here / "conftest.py").read_bytes())
    (root / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_a.py").write_text(SOME)
    (folder / "test_b.py").write_text("import os\ndef test_b(benchmark):\n    os._exit(9)\n")
    names = [f"test_a.py::test_{name}" for name in ("fast", "wrong", "lacking", "gone")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXITWAVE_RUNS", str(root / "runs"))
        return measuring.measure(root, [*names, "test_b.py::test_b", "book::built"], echo=list)


class TestRunning:
    def test_only_what_passed_has_numbers(self, found):
        assert set(found.numbers) == {"test_a.py::test_fast"}
        assert found.numbers["test_a.py::test_fast"]["error"] == 0.5
        assert found.numbers["test_a.py::test_fast"]["min"] >= 0

    def test_each_other_says_why_not(self, found):
        assert found.missing["test_a.py::test_wrong"].startswith("failed: ")
        assert "no_such_peer" in found.missing["test_a.py::test_lacking"]
        assert found.skipped == {"test_a.py::test_lacking"}
        assert found.missing["test_a.py::test_gone"].startswith("test_a.py ended with status 1")
        assert found.missing["test_b.py::test_b"].startswith("test_b.py ended with status 9")
        assert "test_a.py::test_other" not in found.missing

    def test_the_machine_is_named(self, found):
        assert found.about["machine"].endswith("cores")
        assert found.about["versions"]["torch"][:1].isdigit()


class TestCommand:
    def stored(self, tmp_path, monkeypatch, slow):
        monkeypatch.setenv("EXITWAVE_RUNS", str(tmp_path))
        monkeypatch.setattr(bars, "known_bars", lambda: (RATIO, SECONDS))
        return measuring.write(measured(1.0, slow), tmp_path / "numbers.json")

    @pytest.mark.parametrize(("slow", "status"), [(3.0, 0), (1.0, 1)])
    def test_one_line_each_and_the_status(self, exitwave, tmp_path, monkeypatch, slow, status):
        path = self.stored(tmp_path, monkeypatch, slow)
        left, said, errors = exitwave("bars", "--from", path)
        assert left == status, errors
        lines = [json.loads(line) for line in said.splitlines()]
        assert [(line["name"], line["pass"]) for line in lines] == [("ratio", slow == 3.0), ("seconds", True)]
        assert (tmp_path / "bars" / "bars.jsonl").read_text(encoding="utf-8") == said
        assert "2 bars" in errors

    def test_numbers_of_a_busy_machine_are_not_kept(self, exitwave, tmp_path, monkeypatch):
        self.stored(tmp_path, monkeypatch, 3.0)
        monkeypatch.setattr(measuring, "load", lambda: 99.0)
        monkeypatch.setattr(measuring, "measure", lambda *_, **__: pytest.fail("it was measured"))
        left, _, errors = exitwave("bars", "--store")
        assert left == 2
        assert "load 99.0" in errors

    @pytest.mark.parametrize("arguments", [("ratio", "--store"), ("--stored", "--store"), ("nothing",)])
    def test_what_makes_no_sense_is_refused(self, exitwave, tmp_path, monkeypatch, arguments):
        self.stored(tmp_path, monkeypatch, 3.0)
        monkeypatch.setattr(measuring, "measure", lambda *_, **__: pytest.fail("it was measured"))
        assert exitwave("bars", *arguments)[0] == 2

    def test_numbers_of_the_book_are_kept_beside_the_others(self, tmp_path, monkeypatch):
        size = Measured({"book::built": {"megabytes": 50.0}}, {}, frozenset(), {"machine": "a"})
        before = measured(1.0, 3.0)
        monkeypatch.setattr(measuring, "stored_file", lambda: tmp_path / "numbers.json")
        with pytest.raises(InputError, match="no numbers are stored"):
            measuring.beside_stored(size)
        lacking = Measured(before.numbers, {"book::built": "failed"}, frozenset(), {"machine": "a"})
        measuring.write(lacking, tmp_path / "numbers.json")
        joined = measuring.beside_stored(size)
        assert joined.numbers == {**before.numbers, **size.numbers}
        assert joined.missing == {}
        with pytest.raises(InputError, match="another machine"):
            measuring.beside_stored(Measured(size.numbers, {}, frozenset(), {"machine": "b"}))


class TestPage:
    def test_exponents_of_a_law_are_found(self):
        sizes = [100.0, 200.0, 400.0]
        numbers = {
            f"test_scaling.py::test_bloch_waves[{n}]": {"size": n, "seconds": 1e-6 * n**3} for n in sizes
        }
        found, costs = performance.curve(Measured(numbers), performance.GROWTHS[0])
        assert found.tolist() == sizes
        assert performance.exponent(found, costs) == pytest.approx(3)
        text = performance.growth_table(Measured(numbers))
        assert "| 100: 1 s | 400: 64 s | n³ | 3.00 | 3.00 | 3.00 |" in text
        assert text.count("not measured") == len(performance.GROWTHS) - 1
        hv.extension("bokeh")
        drawn = performance.growth_figure(Measured(numbers), performance.GROWTHS[0])
        line, points = (each.dframe().to_numpy() for each in drawn)
        np.testing.assert_allclose(line, points)  # what follows the law lies on its line
        np.testing.assert_allclose(points[-1], [400, 64])

    def test_names_of_benchmarks_are_those_of_the_file(self, request):
        text = (request.config.rootpath / "tests" / "benchmarks" / measuring.SCALING).read_text(
            encoding="utf-8"
        )
        assert all(f"def {growth.benchmark}(" in text for growth in performance.GROWTHS)

    @pytest.mark.parametrize(
        ("value", "unit", "text"),
        [(0.0321, "s", "32.1 ms"), (4.2e-5, "s", "42 µs"), (1.0, "s", "1 s"), (900.0, "s", "900 s"),
         (3.25, "GiB", "3.25 GiB"), (math.nan, "s", "–")],
    )  # fmt: skip
    def test_amounts_are_as_people_write_them(self, value, unit, text):
        assert performance.amount(value, unit) == text

    def test_a_row_says_what_it_is_beside_and_why_it_is_not_met(self):
        known = changed(RATIO, known="a_b | [c]")
        text = performance.table([judge(known, measured(0.5, 0.6)), judge(SECONDS, measured())])
        assert "| a ratio | 500 ms | abTEM 600 ms | 1.2 | ≥ 2 (aim 5): **not met**, as is known (1) |" in text
        assert "| s | 1 s |  |  | ≤ 2 s: met |" in text
        assert performance.table([judge(SECONDS, measured())]).splitlines() == [
            "|  | exitwave | bar |", "| --- | --- | --- |", "| s | 1 s | ≤ 2 s: met |",
        ]  # fmt: skip
        assert text.endswith(r"1. `ratio`: a\_b / (c).")

    def test_the_same_reason_stands_once(self):
        absent = measured(None, missing={FAST: "no GPU"})
        text = performance.table([judge(SECONDS, absent), judge(changed(SECONDS, name="b"), absent)])
        assert text.endswith("\n\n1. `seconds`, `b`: no GPU.")
        assert text.count("not measured (1)") == 2

    def test_other_work_of_the_machine_is_said(self):
        about = {
            "machine": "M",
            "cores": 2,
            "load": 3.0,
            "versions": {"torch": "2", "abtem": "not installed"},
        }
        assert "had other work (load 3.0" in performance.machine(Measured({}, about=about))
        quiet = performance.machine(Measured({}, about=about | {"load": 0.1}))
        assert "other work" not in quiet
        assert "not installed" not in quiet
