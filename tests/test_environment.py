"""Dependencies: pyproject.toml names them, constraints.txt pins them, environment.yml points there."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
REQUIRED = [
    Requirement(text) for text in [*PROJECT["dependencies"], *(t for texts in EXTRAS.values() for t in texts)]
]
PIN = re.compile(r"([A-Za-z0-9][\w.-]*)==([^\s;#]+)")


def pins():
    """Return the pinned version of every package, by its normal name."""
    lines = [line.split("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    found = {}
    for line in filter(None, lines):
        match = PIN.fullmatch(line)
        assert match, f"constraints.txt: {line!r} pins no exact version"
        name = canonicalize_name(match[1])
        assert name not in found, f"constraints.txt: {name} is pinned twice"
        found[name] = match[2]
    return found


class TestConstraints:
    def test_hold_exact_versions_only(self):
        assert len(pins()) > 100

    @pytest.mark.parametrize("requirement", REQUIRED, ids=str)
    def test_pin_what_the_project_asks_for(self, requirement):
        name = canonicalize_name(requirement.name)
        assert name in pins(), f"{name} is not pinned: run `make lock`"
        assert requirement.specifier.contains(pins()[name])

    def test_name_no_build_of_one_machine(self):
        # "2.13.0+cpu" is not on PyPI; a path or a URL is not anywhere else.
        local = {
            name: version for name, version in pins().items() if Version(version).local or "+" in version
        }
        assert local == {}
        assert not re.search(r"@ |file:|://|^-", (ROOT / "constraints.txt").read_text(), re.MULTILINE)

    def test_torch(self):
        assert pins()["torch"] == "2.13.0"

    def test_leave_the_project_itself_out(self):
        assert canonicalize_name(PROJECT["name"]) not in pins()


class TestCondaEnvironment:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())

    def conda(self):
        return [each for each in self.environment["dependencies"] if isinstance(each, str)]

    def pip(self):
        [section] = [each for each in self.environment["dependencies"] if isinstance(each, dict)]
        return section["pip"]

    def test_pip_takes_the_constraints_and_the_project_alone(self):
        assert set(section := self.pip()) == {"--constraint constraints.txt", section[-1]}
        assert re.fullmatch(r"--editable \.\[[\w,]+\]", section[-1])

    def test_extras_are_those_of_the_project(self):
        named = set(re.search(r"\[(.+)\]", self.pip()[-1])[1].split(","))
        assert named == set(EXTRAS)

    def test_python_is_that_of_the_project(self):
        [python] = [each for each in self.conda() if each.startswith("python")]
        assert python == f"python{PROJECT['requires-python']}"

    def test_has_no_pins_of_its_own(self):
        assert {each for each in self.conda() if not each.startswith("python")} == {"pip"}
        assert not re.search(
            r"\d=|==|<|~=", (ROOT / "environment.yml").read_text().replace("python>=3.11", "")
        )


class TestMakefile:
    text = (ROOT / "Makefile").read_text()

    def test_installs_under_the_constraints(self):
        assert re.search(r"^PIP := .*--constraint constraints\.txt$", self.text, re.MULTILINE)
        installs = [line for line in self.text.splitlines() if "pip install" in line and "-lock" not in line]
        assert all("--constraint" in line for line in installs)

    def test_locks_the_same_torch(self):
        assert re.findall(r"torch==(\S+)", self.text) == [pins()["torch"]]
