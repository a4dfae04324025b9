"""The command line: what goes well, and what goes wrong in exactly one line."""

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
import typer
import xarray as xr

from exitwave import __version__, cli, metrics, records
from exitwave.chapters.run import run_path, save_run
from exitwave.cli import options
from exitwave.papers.zhou2020 import scene as scene_of
from exitwave.papers.zhou2020.parameters import Parameters
from exitwave.readers.ovf import write_ovf

ROOT = Path(__file__).parents[1]
GIVEN = ["--defocus", "-0.15mm,0,0.15mm", "--energy", "200keV", "--pixel", "10nm"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory, whose runs and data are in it too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EXITWAVE_PROJECT", str(ROOT))
    monkeypatch.setenv("EXITWAVE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("EXITWAVE_DATA", str(tmp_path / "data"))
    return tmp_path


@pytest.fixture
def call(here, exitwave):
    return exitwave


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def assert_refused(status, output, errors, *named):
    assert status != 0
    assert output == ""
    [line] = errors.splitlines()
    assert line.startswith("exitwave: ")
    assert "Traceback" not in line
    for text in named:
        assert text in line


@pytest.fixture(scope="session")
def series(tmp_path_factory):
    """Images that the command line has simulated, in a process of its own."""
    folder = tmp_path_factory.mktemp("series")
    command = [
        sys.executable,
        "-m",
        "exitwave.cli",
        "simulate",
        "lorentz",
        "-p",
        "scale=smoke",
        "-o",
        "new/x.nc",
    ]
    environment = os.environ | {"EXITWAVE_PROJECT": str(ROOT)}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == [str(Path("new") / "x.nc")]
    return folder / "new" / "x.nc"


@pytest.fixture(scope="session")
def scene():
    return scene_of.simulate(Parameters.at("smoke"))


def correlation(path, scene):
    phase = records.load(path, "phase")["phase"].values
    return float(metrics.correlation(torch.as_tensor(phase).double(), scene.truth))


class TestRefusals:
    @pytest.fixture
    def arrays(self, here):
        rng = np.random.default_rng(0)
        stack = rng.uniform(0.5, 1.5, (3, 16, 16))
        np.save(here / "three.npy", stack)
        np.save(here / "two.npy", stack[:2])
        np.save(here / "small.npy", stack[:1, :8])
        stack[1, 2, 3] = np.nan
        np.save(here / "nan.npy", stack)
        (here / "text.dm3").write_text("images of a film\n" * 200)
        (here / "text.nc").write_text("images of a film\n" * 200)

    @pytest.mark.parametrize(
        ("given", "named"),
        [
            (["nan.npy", *GIVEN], ["nan.npy", "1 pixels are not finite"]),
            (["two.npy", *GIVEN], ["2 images", "3 defoci"]),
            (["two.npy", "small.npy", *GIVEN], ["small.npy", "(8, 16)", "(16, 16)"]),
            (["three.npy", *GIVEN[:-1], "0"], ["pixel size", "0.0"]),
            (["three.npy", *GIVEN[:-1], "-5nm"], ["pixel size", "-50.0"]),
            (["three.npy", *GIVEN[:-1], "5parsec5"], ["pixel", "'5parsec5'"]),
            (["three.npy", "--defocus", "-1mm,0,1s", *GIVEN[2:]], ["defocus", "'1s'"]),
            (["three.npy", "--defocus", "1mm,2mm,3mm", *GIVEN[2:]], ["in focus (0)"]),
            (["three.npy", *GIVEN[:2], "--energy", "0", *GIVEN[4:]], ["energy", "0 eV"]),
            (["three.npy"], ["three.npy", "energy", "defocus"]),
            (["three.npy", *GIVEN, "--method", "magic"], ["'magic'", "tie, gradient"]),
            (["three.npy", *GIVEN, "--cutoff", "-1"], ["cutoff -1.0"]),
            (["three.npy", *GIVEN, "--device", "abacus"], ["device 'abacus'"]),
            (["text.dm3", *GIVEN], ["text.dm3"]),
            (["text.nc"], ["text.nc"]),
            (["missing.dm3", *GIVEN], ["missing.dm3: no such file"]),
            ([".", *GIVEN], [".: a folder"]),
        ],
    )
    @pytest.mark.usefixtures("arrays")
    def test_retrieve(self, call, here, given, named):
        before = files(here)
        assert_refused(*call("retrieve", "lorentz", *given, "-o", "out.nc"), *named)
        assert files(here) == before

    def test_a_record_with_holes(self, call, here, series):
        record = xr.load_dataset(series, engine="netcdf4")
        record["intensity"][1, 5, 7] = np.nan
        records.save(record, here / "holes.nc")
        before = files(here)
        assert_refused(
            *call("retrieve", "lorentz", "holes.nc", "-o", "out.nc"), "holes.nc", "not finite", "y=5, x=7"
        )
        assert files(here) == before

    @pytest.mark.parametrize(
        ("given", "named"),
        [
            (["nois=0.3"], ["'nois'", "'noise'"]),
            (["noise=abc"], ["noise", "'abc'"]),
            (["images=2.5"], ["images", "'2.5'"]),
            (["images=3"], ["images=3", "even"]),
            (["noise=7"], ["noise=7.0"]),
            (["noise=nan"], ["noise", "nan"]),
            (["pixels=1"], ["pixels=1"]),
            (["focus=weak"], ["focus='weak'"]),
            (["scale=huge"], ["'huge'", "smoke, workshop, gpu, paper"]),
            (["noise=0.1", "noise=0.2"], ["'noise' is given twice"]),
            (["noise =0.1", "noise=0.2"], ["'noise' is given twice"]),
            (["noise"], ["'noise'", "name=value"]),
            (["=0.1"], ["'=0.1'", "name=value"]),
        ],
    )
    @pytest.mark.parametrize("command", [["run", "zhou2020"], ["simulate", "lorentz", "-o", "out.nc"]])
    def test_parameters(self, call, here, command, given, named):
        options = [text for each in given for text in ("-p", each)]
        assert_refused(*call(*command, *options), *named)
        assert files(here) == {}

    @pytest.mark.parametrize(
        ("command", "named"),
        [
            ("run zhou", ["'zhou'", "zhou2020"]),
            ("sweep zhou tie", ["'zhou'", "zhou2020"]),
            ("sweep zhou2020", ["name a study"]),
            ("sweep zhou2020 tee -p scale=smoke", ["'tee'", "tie, comparison"]),
            ("sweep zhou2020 tie -p nois=0,1", ["'nois'", "'noise'"]),
            ("sweep zhou2020 tie -p noise=0,abc", ["'abc'"]),
            ("sweep zhou2020 tie -p noise=0.1,0.1", ["noise"]),
            ("sweep zhou2020 tie -p noise=0 -p noise=1", ["'noise' is given twice"]),
            ("simulate lorentz -o out.nc -p magnetisation=missing.ovf", ["missing.ovf"]),
            ("run zhou2020 -p magnetisation=missing.ovf", ["missing.ovf"]),
            ("sweep zhou2020 tie -p magnetisation=missing.ovf", ["missing.ovf"]),
            ("reproduce", ["name a paper"]),
            ("reproduce zhou", ["'zhou'"]),
            ("reproduce zhou2020 --scale huge", ["'huge'"]),
            ("reproduce zhou2020 --only zhou-nothing", ["'zhou-nothing'"]),
            ("reproduce --check 2 --scale gpu", ["nothing is stored at scale gpu"]),
            ("claims --paper zhou", ["'zhou'"]),
            ("claims --scale huge", ["'huge'"]),
            ("claims --format html", ["'html'"]),
            ("runs show abc", ["'abc'"]),
            ("runs compare abc def", ["'abc'"]),
        ],
    )
    def test_commands(self, call, here, command, named):
        assert_refused(*call(*command.split()), *named)
        assert files(here) == {}

    def test_a_folder_that_takes_no_files(self, call, here, series):
        Path("file").touch()
        assert_refused(*call("retrieve", "lorentz", series, "-o", "file/out.nc"), "file")
        assert [path.name for path in here.iterdir()] == ["file"]

    def test_in_a_process_of_its_own(self, here):
        command = [sys.executable, "-m", "exitwave.cli", "run", "zhou2020", "-p", "nois=0.3"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert_refused(done.returncode, done.stdout, done.stderr, "'nois'", "did you mean 'noise'")
        assert done.returncode == 2
        assert files(here) == {}


class TestHelp:
    def commands(self):
        """Return every command as the words that call it."""

        def walk(command, words):
            yield words
            for name, inner in getattr(command, "commands", {}).items():
                yield from walk(inner, (*words, name))

        return list(walk(typer.main.get_command(cli.app), ()))

    def test_of_every_command(self, call):
        found = self.commands()
        table = re.findall(
            r"^\| `exitwave.*$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE
        )
        assert {words[0] for words in found if words} == {line.split()[2].strip("`") for line in table}
        for words in found:
            for option in ("--help", "-h"):
                status, output, errors = call(*words, option)
                assert (status, errors) == (0, "")
                assert " ".join(("exitwave", *words)) in output

    def test_knows_each_option_that_the_readme_names(self, call):
        readme = (ROOT / "README.md").read_text(encoding="utf-8")
        for named in re.findall(r"^\| `exitwave ([^`]+)`", readme, re.MULTILINE):
            words = tuple(itertools.takewhile(str.islower, named.split()))
            known = [each for each in self.commands() if each == words[: len(each)]]
            _, output, _ = call(*max(known, key=len), "--help")
            for option in re.findall(r"--[a-z-]+", named):
                assert option in output, (named, option)

    def test_is_quick(self):
        heavy = {"torch", "xarray", "numpy", "distributed"}
        code = f"import sys, exitwave.cli; print(sorted({heavy} & set(sys.modules)))"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
        )
        assert done.stdout.strip() == "[]"

    def test_version(self, call):
        assert call("--version") == (0, f"exitwave {__version__}\n", "")


class TestLorentz:
    def test_simulated_images(self, series, scene):
        record = records.load(series, "images")
        assert record["defocus"].values.tolist() == [0.0, -1.5e6, 1.5e6]
        np.testing.assert_allclose(record["intensity"][0], scene.in_focus, rtol=1e-5)
        np.testing.assert_allclose(record["intensity"][1:], scene.defocused, rtol=1e-5)
        made = records.provenance_of(record)
        assert made["parameters"] == scene.parameters.model_dump()
        assert made["command"].endswith("simulate lorentz -p scale=smoke -o new/x.nc")

    def test_tie_finds_the_phase_with_its_sign(self, call, series, scene):
        status, output, errors = call("retrieve", "lorentz", series, "-o", "y.nc", "--method", "tie")
        assert (status, errors) == (0, "")
        assert output.startswith("y.nc\n")
        assert correlation("y.nc", scene) > 0.95
        made = records.provenance_of(records.load("y.nc"))
        assert made["parameters"]["files"] == ["x.nc"]
        assert made["parameters"]["method"] == "tie"

    def test_turned_defoci_turn_the_sign(self, call, series, scene):
        call("retrieve", "lorentz", series, "-o", "y.nc", "--defocus", "0,0.15mm,-0.15mm", "--method", "tie")
        assert correlation("y.nc", scene) < -0.95

    def test_gradient_fits_the_images_better(self, call, series, scene):
        call("retrieve", "lorentz", series, "-o", "tie.nc", "--method", "tie")
        status, _, errors = call(
            "retrieve",
            "lorentz",
            series,
            "-o",
            "y.nc",
            "--method",
            "gradient",
        )
        assert (status, errors) == (0, "")
        assert correlation("y.nc", scene) > 0.95
        residuals = [records.load(name)["residual"].values for name in ("y.nc", "tie.nc")]
        assert (residuals[0] < 0.5 * residuals[1]).all()

    def test_units_on_the_command_line_are_those_of_the_record(self, call, series):
        intensity = records.load(series)["intensity"].values
        np.save("x.npy", intensity)
        status, _, errors = call(
            "retrieve", "lorentz", "x.npy", "-o", "b.nc", "--defocus", "0,-0.15mm,150um", "--energy", "200kV",
            "--pixel", "20nm", "--method", "tie",
        )  # fmt: skip
        assert (status, errors) == (0, "")
        call("retrieve", "lorentz", series, "-o", "a.nc", "--method", "tie")
        np.testing.assert_allclose(records.load("b.nc")["phase"], records.load("a.nc")["phase"], atol=1e-5)

    def test_a_file_in_amperes_per_metre_and_one_of_unit_vectors(self, call, here):
        film = np.zeros((3, 1, 64, 64))
        film[1, :, 16:48, 16:32], film[1, :, 16:48, 32:48] = 1.0, -1.0
        found = []
        for name, magnetisation, unit in (("a", film * 8e5, "A/m"), ("b", film, "1")):
            record = records.magnetisation(magnetisation, cell=(100.0, 100.0, 100.0))
            path = write_ovf(record, f"{name}.ovf")
            path.write_bytes(path.read_bytes().replace(b"A/m", unit.encode()))
            given = [f"magnetisation={name}.ovf", "saturation=8e5", "pixels=64", "sampling=100"]
            options = [word for each in given for word in ("-p", each)]
            status, output, errors = call("simulate", "lorentz", *options, "-o", f"{name}.nc")
            assert (status, output, errors) == (0, f"{name}.nc\n", "")
            found.append(records.load(f"{name}.nc")["intensity"].values)
        np.testing.assert_allclose(*found, rtol=1e-5)
        assert np.ptp(found[0][1]) > 0.01

    @pytest.mark.external
    def test_a_film_of_mumax(self, call, external_data):
        film = external_data / "lorentz_pylorentz" / "example_mumax.ovf"
        status, output, errors = call("simulate", "lorentz", "-p", f"magnetisation={film}", "-o", "x.nc")
        assert (status, output, errors) == (0, "x.nc\n", "")
        assert call("retrieve", "lorentz", "x.nc", "-o", "y.nc", "--method", "tie")[0] == 0
        assert correlation("y.nc", scene_of.simulate(Parameters.at(magnetisation=str(film)))) > 0.8


class TestClaims:
    def test_json(self, call):
        status, output, errors = call("claims", "--format", "json")
        assert (status, errors) == (0, "")
        rows = json.loads(output)
        assert len(rows) == 74 * 4
        assert set(rows[0]) == {
            "id", "paper", "scale", "claimed", "measured", "unit", "verdict", "samples", "seeds", "source",
        }  # fmt: skip

    def test_of_one_paper_at_one_scale(self, call):
        rows = json.loads(call("claims", "--format", "json", "--paper", "cao2020", "--scale", "gpu")[1])
        assert {(row["paper"], row["scale"]) for row in rows} == {("cao2020", "gpu")}
        assert len(rows) == 8

    def test_markdown(self, call):
        output = call("claims", "--format", "markdown", "--paper", "cao2020", "--scale", "gpu")[1]
        assert len([line for line in output.splitlines() if line.startswith("| `cao-")]) == 8

    def test_table(self, call):
        status, output, _ = call("claims", "--paper", "cao2020", "--scale", "gpu")
        assert status == 0
        assert "8 not run" in output.splitlines()[-1]
        assert output.count("cao-") == 8

    def test_json_is_strict(self):
        text = options.as_json({"a": [1.0, float("nan")], "b": {"c": float("inf")}, "d": None, "e": "x"})
        assert json.loads(text, parse_constant=pytest.fail) == {
            "a": [1.0, None],
            "b": {"c": None},
            "d": None,
            "e": "x",
        }


@pytest.mark.usefixtures("project")
class TestRun:
    """A small chapter that declares the real parameters, in a project of its own."""

    @pytest.fixture
    def project(self, here, monkeypatch):
        real = nbformat.read(ROOT / "notebooks" / "zhou2020.ipynb", as_version=4)
        [declared] = [cell for cell in real.cells if "parameters" in cell.metadata.get("tags", [])]
        ending = """
from pathlib import Path
import xarray as xr
from exitwave.chapters.run import save_run
from exitwave.papers.zhou2020.parameters import Parameters
from exitwave.readers.ovf import write_ovf
parameters = Parameters.collect(globals())
with Path("log").open("a") as log:
    log.write(f"{parameters.noise}\\n")
attrs = {"units": "1", "long_name": "twice the noise"}
save_run("zhou2020", parameters, xr.Dataset({"twice": ((), 2 * parameters.noise, attrs)}), 1.0)
"""
        small = nbformat.v4.new_notebook(cells=[declared, nbformat.v4.new_code_cell(ending)])
        (here / "project" / "notebooks").mkdir(parents=True)
        nbformat.write(small, here / "project" / "notebooks" / "zhou2020.ipynb")
        (here / "project" / "_toc.yml").touch()
        specimens = Path("data") / "zhou2020" / "specimens"
        shutil.copytree(ROOT / specimens, here / "project" / specimens)
        monkeypatch.setenv("EXITWAVE_PROJECT", str(here / "project"))
        monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def test_writes_a_notebook_and_its_numbers(self, call, here):
        status, output, errors = call("run", "zhou2020", "-p", "scale=smoke", "-p", "noise=1e-1")
        assert status == 0, errors
        result = run_path("zhou2020", Parameters.at("smoke", noise=0.1))
        assert result.parent == here / "runs" / "zhou2020"
        written = [result.with_suffix(".ipynb"), result]
        assert output.split() == [str(path) for path in written]
        assert float(records.load(written[1])["twice"]) == 0.2
        assert "noise = 0.1" in written[0].read_text()

    def test_a_sweep_of_notebooks_skips_what_is_done(self, call, here):
        for noise in ("0,0.5", "0,0.5,1"):
            status, output, errors = call(
                "sweep", "zhou2020", "--notebooks", "-p", "scale=smoke", "-p", f"noise={noise}"
            )
            assert status == 0, errors
        assert [float(records.load(path)["twice"]) for path in output.split()] == [0.0, 1.0, 2.0]
        assert (here / "log").read_text().split() == ["0.0", "0.5", "1.0"]


class TestRuns:
    @pytest.fixture
    def runs(self, call):  # which keeps the runs in a folder of this test
        """Two finished runs of a chapter, by the hashes in their names."""
        attrs = {"units": "1", "long_name": "quality"}
        found = []
        for noise, quality in ((0.1, 0.75), (0.2, 0.5)):
            result = xr.Dataset({"quality": ((), quality, attrs), "hole": ((), np.nan, attrs)})
            found.append(save_run("zhou2020", Parameters.at("smoke", noise=noise), result, seconds=12.34))
        return [path.stem for path in found]

    def test_list(self, call, runs):
        status, output, errors = call("runs", "list")
        assert (status, errors) == (0, "")
        for run in runs:
            [line] = [line for line in output.splitlines() if run in line]
            assert "smoke" in line
            assert "12.3" in line

    def test_list_without_runs(self, call):
        assert call("runs", "list")[0] == 0

    def test_show(self, call, runs):
        status, output, _ = call("runs", "show", runs[0])
        assert status == 0
        shown = json.loads(output, parse_constant=pytest.fail)
        assert shown["quantities"] == {"quality": 0.75, "hole": None}
        assert shown["made"]["parameters"]["noise"] == 0.1
        assert shown["made"]["seconds"] == 12.34
        assert json.loads(call("runs", "show", runs[1][:8])[1])["quantities"]["quality"] == 0.5

    @pytest.mark.usefixtures("runs")
    def test_show_needs_one_run(self, call):
        assert_refused(*call("runs", "show", ""), "2 runs")

    def test_compare(self, call, runs):
        status, output, _ = call("runs", "compare", *runs)
        assert status == 0
        rows = {
            words[0]: words[1:]
            for words in (re.findall(r"[\w.]+", line) for line in output.splitlines())
            if words
        }
        assert rows["noise"] == ["0.1", "0.2"]
        assert rows["quality"] == ["0.75", "0.5"]
        assert "pixels" not in rows
