"""A stored result goes stale when something that made it has changed, and only then."""

import importlib
import sys

import pytest

from exitwave.chapters import sources
from exitwave.papers.zhou2020 import studies

FILES = {
    "__init__.py": '"""A package."""\n',
    "study.py": '''
"""Studies."""
import math

from fakewave import library
from fakewave.constants import SPEED, UNUSED
from fakewave.library import shared as common
from fakewave.shapes import Square


class PaperParameters:
    """What the parameter models of exitwave derive from."""


class Parameters(PaperParameters):
    """Parameters."""

    noise: float = 0.1

    def level(self):
        return 2 * self.noise


def run(parameters, device="cpu"):
    """Run it."""
    # A comment.
    from fakewave import late

    square = Square(2.0)
    return library.tool(square.area()) + common(SPEED) + late.value() + Parameters().level() + math.pi


def unrelated():
    return UNUSED
''',
    "library/__init__.py": '"""Re-exports."""\nfrom fakewave.library.inner import shared, tool\n',
    "library/inner.py": '''
def tool(x):
    """Use a helper."""
    return _helper(x) + 1


def _helper(x):
    return 3 * x


def shared(x):
    return x - 1


def idle(x):
    return x
''',
    "constants.py": "BASE = 3\nSPEED = BASE * 100\nUNUSED = 7\n",
    "shapes.py": '''
class Shape:
    """A shape."""

    def factor(self):
        return 1.0


class Square(Shape):
    def __init__(self, side):
        self.side = side

    def area(self):
        return self.factor() * self.side**2


class Circle(Shape):
    pass
''',
    "late.py": "def value():\n    return 1\n\n\ndef other():\n    return 2\n",
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of sources that can be edited; returns a function that edits a file and hashes `run`."""
    folder = tmp_path / "fakewave"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.setattr(sources, "PACKAGE", "fakewave")
    monkeypatch.syspath_prepend(str(tmp_path))
    study = importlib.import_module("fakewave.study")

    def edited(name=None, old="", new="", count=1):
        if name is not None:
            text = (folder / name).read_text()
            assert text.count(old) >= 1, f"{old!r} is not in {name}"
            (folder / name).write_text(text.replace(old, new, count))
        sources._module.cache_clear()
        return sources.source_hash(study.run)

    yield edited
    for name in [each for each in sys.modules if each.split(".")[0] == "fakewave"]:
        del sys.modules[name]
    sources._module.cache_clear()


UNCHANGED = {
    "comment": ("study.py", "# A comment.", "# Another comment."),
    "docstring of the function": ("study.py", '"""Run it."""', '"""Run it, described better."""'),
    "docstring removed": ("study.py", '    """Run it."""\n', ""),
    "docstring of a module": ("study.py", '"""Studies."""', '"""More of them."""'),
    "docstring of a helper": ("library/inner.py", '    """Use a helper."""\n', ""),
    "docstring of a class": ("shapes.py", '    """A shape."""\n', ""),
    "formatting": (
        "study.py",
        "    return library.tool(square.area()) +",
        "    return (library . tool(square.area())) +",
    ),
    "quotes": ("study.py", 'device="cpu"', "device='cpu'"),
    "new function in the same file": (
        "library/inner.py",
        "def idle(x):",
        "def new(x):\n    return -x\n\n\ndef idle(x):",
    ),
    "function that is not used": (
        "library/inner.py",
        "def idle(x):\n    return x",
        "def idle(x):\n    return 5",
    ),
    "function of the study's file": ("study.py", "    return UNUSED", "    return UNUSED + 1"),
    "constant that is not used": ("constants.py", "UNUSED = 7", "UNUSED = 8"),
    "class that is not used": (
        "shapes.py",
        "class Circle(Shape):\n    pass",
        "class Circle(Shape):\n    size = 1",
    ),
    "function of a module imported late": ("late.py", "return 2", "return 3"),
    "value of a parameter": ("study.py", "noise: float = 0.1", "noise: float = 0.5"),
    "new parameter": (
        "study.py",
        "    noise: float = 0.1\n",
        "    noise: float = 0.1\n    dose: float = 1.0\n",
    ),
    "order of definitions": (
        "constants.py",
        "BASE = 3\nSPEED = BASE * 100\nUNUSED = 7\n",
        "UNUSED = 7\nBASE = 3\nSPEED = BASE * 100\n",
    ),
    "import that is not used": ("library/inner.py", "def tool(x):", "import os\n\n\ndef tool(x):"),
}
CHANGED = {
    "the function itself": ("study.py", "+ math.pi", "- math.pi"),
    "its default": ("study.py", 'device="cpu"', 'device="cuda"'),
    "function through a re-export": ("library/inner.py", "_helper(x) + 1", "_helper(x) + 2"),
    "helper of that function": ("library/inner.py", "3 * x", "4 * x"),
    "function under another name": ("library/inner.py", "return x - 1", "return x - 2"),
    "constant": ("constants.py", "BASE * 100", "BASE * 200"),
    "constant of a constant": ("constants.py", "BASE = 3", "BASE = 4"),
    "method of a class": ("shapes.py", "self.side**2", "self.side**3"),
    "base class": ("shapes.py", "return 1.0", "return 2.0"),
    "module imported late": ("late.py", "return 1", "return 5"),
    "method of the parameters": ("study.py", "return 2 * self.noise", "return 3 * self.noise"),
    "where a re-export comes from": (
        "library/__init__.py",
        "from fakewave.library.inner import shared, tool",
        "from fakewave.library.inner import idle as tool, shared",
    ),
    "a string that is no docstring": (
        "study.py",
        "    square = Square(2.0)",
        '    square = Square(2.0, *"")',
    ),
}


class TestHash:
    @pytest.mark.parametrize("what", UNCHANGED)
    def test_keeps(self, package, what):
        assert package() == package(*UNCHANGED[what])

    @pytest.mark.parametrize("what", CHANGED)
    def test_changes_with(self, package, what):
        assert package() != package(*CHANGED[what])

    def test_comes_back_with_the_source(self, package):
        before = package()
        assert package("constants.py", "BASE = 3", "BASE = 4") != before
        assert package("constants.py", "BASE = 4", "BASE = 3") == before

    def test_is_short(self, package):
        assert len(package()) == 16
        assert int(package(), 16) >= 0

    def test_nothing_is_run(self, package):
        before = package()
        assert "fakewave.late" not in sys.modules
        assert (
            package("late.py", "def value", "raise SystemExit('this module was run')\n\n\ndef value")
            == before
        )

    def test_names_what_is_followed(self, package):
        found = sources.closure(sys.modules["fakewave.study"].run)
        package()
        assert set(found) == {
            "fakewave.constants:BASE",
            "fakewave.constants:SPEED",
            "fakewave.late:value",
            "fakewave.library.inner:_helper",
            "fakewave.library.inner:shared",
            "fakewave.library.inner:tool",
            "fakewave.shapes:Shape",
            "fakewave.shapes:Square",
            "fakewave.study:Parameters",
            "fakewave.study:run",
        }
        assert "comment" not in "".join(found.values())
        assert '"""' not in "".join(found.values())


class TestRealStudies:
    def test_comparison_reaches_down_to_the_optics(self):
        found = set(sources.closure(studies.comparison))
        expected = {
            "exitwave.metrics.images:absolute_correlation",
            "exitwave.metrics.images:correlation",
            "exitwave.metrics.waves:gradient_rmse",
            "exitwave.optics.aberrations:Aberrations",
            "exitwave.optics.beam:wavelength",
            "exitwave.optics.transfer:transfer_function",
            "exitwave.papers.zhou2020.parameters:Parameters",
            "exitwave.papers.zhou2020.studies:comparison",
            "exitwave.papers.zhou2020.judge:edge_resolution",
            "exitwave.papers.zhou2020.scene:simulate",
            "exitwave.retrieve.quasi_newton:_Problem",
            "exitwave.retrieve.gradient:amplitude_loss",
            "exitwave.retrieve.gradient:retrieve_phase",
            "exitwave.retrieve.tie:defocus_derivative",
            "exitwave.retrieve.tie:solve",
            "exitwave.simulate.imaging:add_gaussian_noise",
            "exitwave.simulate.imaging:images",
            "exitwave.simulate.lorentz:_antiderivative",
            "exitwave.simulate.lorentz:magnetic_phase",
            "exitwave.specimens.magnets:ten_bars",
        }
        assert expected <= found

    def test_studies_depend_on_what_they_call_alone(self):
        tie, both = (set(sources.closure(study)) for study in (studies.tie_retrieval, studies.comparison))
        gradient = "exitwave.retrieve.gradient:retrieve_phase"
        assert gradient in both
        assert gradient not in tie
        for found in (tie, both):
            assert not [key for key in found if key.startswith(("exitwave.chapters", "exitwave.cli"))]
            assert not [key for key in found if "figures" in key]

    def test_settings_of_the_paper_do_not_enter(self):
        found = sources.closure(studies.comparison)["exitwave.papers.zhou2020.parameters:Parameters"]
        assert "FunctionDef(name='defocus'" in found
        assert "presets" not in found
        assert "inner_potential" not in found

    def test_is_the_same_in_every_session(self):
        sources._module.cache_clear()
        first = sources.source_hash(studies.tie_retrieval)
        sources._module.cache_clear()
        assert first == sources.source_hash(studies.tie_retrieval)
        assert first != sources.source_hash(studies.comparison)
