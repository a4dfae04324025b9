"""Definitions that were mended after results had been stored: which may be; the next change counts."""

import ast
import importlib

import pytest

from exitwave.chapters import sources
from exitwave.chapters.project import studies_of

# What carries bytes between memory and files, and tells what is wrong with them; no study, operator, metric.
PLUMBING = (
    "exitwave.records",
    "exitwave.readers.",
    "exitwave.networks.weights",
    "exitwave.networks.checkpoints",
    "exitwave.networks.released",
    "exitwave.provenance",
    "exitwave.project",
)
READS = "exitwave.networks.weights:read_tensors"
KEYS = sorted(sources.mended())


def current(key):
    module, name = key.split(":")
    return sources._Module(module).definitions[name]


@pytest.mark.parametrize("key", KEYS)
def test_each_is_the_version_that_was_looked_at(key):
    """Else the entry does nothing and is to be removed: the definition has changed again."""
    assert sources.mended()[key]["now"] == sources.version(current(key))


@pytest.mark.parametrize("key", KEYS)
def test_each_differs_from_before_and_says_why(key):
    entry = sources.mended()[key]
    before = ast.parse(entry["before"]).body
    assert sources._targets(before[0]) == [key.split(":")[1]]
    assert sources.version(before) != entry["now"]
    assert len(entry["why"]) > 20


@pytest.mark.parametrize("key", KEYS)
def test_none_makes_a_result(key):
    assert key.startswith(PLUMBING)
    importlib.import_module(key.split(":")[0])


@pytest.fixture
def fresh():
    """Forget what was read of the sources, before and after."""
    sources._module.cache_clear()
    yield
    sources._module.cache_clear()


def a_study():
    """Return one that reads weights."""
    return next(study for study in studies_of("larsen2022").values() if READS in sources.closure(study))


def changed(monkeypatch, key, change):
    """Let a definition read otherwise."""
    module, name = key.split(":")
    definitions = sources._Module(module).definitions

    class Changed(sources._Module):
        def __init__(self, wanted):
            super().__init__(wanted)
            if wanted == module:
                text = ast.unparse(definitions[name][0])
                assert change(text) != text
                self.definitions[name] = ast.parse(change(text)).body

    monkeypatch.setattr(sources, "_Module", Changed)
    sources._module.cache_clear()


@pytest.mark.usefixtures("fresh")
def test_the_next_change_counts(monkeypatch):
    study = a_study()
    now = sources.source_hash(study)
    changed(monkeypatch, READS, lambda text: text.replace("return (tensors, about)", "return ({}, about)"))
    assert sources.source_hash(study) != now


@pytest.mark.usefixtures("fresh")
def test_what_was_mended_enters_as_it_was_before(monkeypatch):
    study = a_study()
    now = sources.source_hash(study)
    before = sources.mended()[READS]["before"]
    changed(monkeypatch, READS, lambda _: before)
    assert sources.source_hash(study) == now


@pytest.mark.usefixtures("fresh")
def test_without_the_list_results_would_be_stale(monkeypatch):
    study = a_study()
    now = sources.source_hash(study)
    sources._module.cache_clear()
    monkeypatch.setattr(sources, "mended", dict)
    assert sources.source_hash(study) != now
