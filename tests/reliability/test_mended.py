"""Definitions that were mended after results had been stored: which may be; the next change counts."""

import ast
import importlib
from functools import partial

import numpy as np
import pytest
import torch

from exitwave.chapters import sources
from exitwave.chapters.project import studies_of
from exitwave.optics import Aberrations
from exitwave.simulate.exit_waves import Multislice

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
SHAPES = [(64, 64), (128, 96), (65, 63), (1, 7), (7, 2), (2, 3), (300, 301)]
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


def before(key):
    """Return what was mended as it was, with what it uses as that is now."""
    module, name = key.split(":")
    # With what a module imported then and does not need now.
    space = {"functional": torch.nn.functional} | vars(importlib.import_module(module))
    exec(compile(ast.parse(sources.mended()[key]["before"]), key, "exec"), space)
    return space[name]


def lenses(make):
    """Yield transfer functions: round lenses, others, spreads, apertures, precisions, a gradient."""
    aberrations = [
        {"C10": -100.0},
        {"C10": torch.linspace(-500, 500, 3), "C30": 1e7},
        {"C10": 55.0, "C30": -1.4e5, "C50": 1e6},
        {"C10": 1.0, "C12": 3.0, "phi12": 0.2},
        {"C10": torch.tensor([1.0, 2.0], requires_grad=True)},
    ]
    about = [
        {}, {"focal_spread": 20.0}, {"focal_spread": 20.0, "angular_spread": 1e-4, "coupled": True},
        {"angular_spread": torch.tensor(1e-5)}, {"aperture": 0.02}, {"aperture": 0.03, "aperture_edge": 0.01},
    ]  # fmt: skip
    for shape in SHAPES:
        for each in aberrations:
            for more in about:
                for dtype in (torch.complex64, torch.complex128):
                    yield make(
                        shape, (0.1, 0.13), energy=8e4, aberrations=Aberrations(**each), dtype=dtype, **more
                    )


def of_atoms(make, *, flat):
    """Yield waves or projected potentials, and their gradients."""
    for number, shape in enumerate(shape for shape in SHAPES if min(shape) > 1):
        generator = np.random.default_rng(number)
        species = generator.choice([1, 6, 16, 42], 40)
        places = generator.random((40, 3)) * [shape[1] * 0.1, shape[0] * 0.1, 8]
        for displacement, table in ((0.0, "kirkland"), (0.003, "lobato")):
            how = Multislice(6e4, (0.1, 0.09), shape, thickness=1.0, displacement=displacement, table=table)
            free = torch.tensor(places[:, :2] if flat else places, requires_grad=True)
            made = make(species, free, how)
            made.abs().pow(3).sum().backward()
            yield from (made, free.grad)


def encoders(make):
    """Yield features of as many patterns as an encoder takes at once, and of more."""
    torch.manual_seed(0)
    encoder = make((24, 24), 16, (8, 16, 32))
    for number in (1, 2, 300, 512, 513, 600, 1024, 1025, 2000):
        # Of a generator of its own: the two versions take turns.
        patterns = torch.rand(number, 24, 24, generator=torch.Generator().manual_seed(number)) ** 3
        patterns = patterns * (patterns > 0.1)  # most of a counted pattern is zero
        with torch.no_grad():
            made = encoder(patterns)
        yield made
        if number < 600:
            made = encoder(patterns)
            (made**2).sum().backward()
            yield from (made, encoder.linear.weight.grad)


class Cut(torch.nn.Module):
    def forward(self, seen):
        return seen.sum((3, 4))[:, None]


def predictions(make):
    """Yield images of scans of whole blocks and others."""
    for rows in (16, 17, 23, 24, 31):
        for columns in (16, 19, 24, 30, 40):
            seen = torch.rand(rows, columns, 3, 5, generator=torch.Generator().manual_seed(rows * columns))
            yield make(Cut(), seen)


def coarsened(make):
    """Yield patterns in larger pixels: of counts, of what a dark current was taken from, with a gradient."""
    for number, shape in enumerate(((3, 4, 48, 48), (1, 1, 8, 16), (5, 24, 4), (2, 128, 128)) * 2):
        generator = torch.Generator().manual_seed(number)
        patterns = torch.randn(shape, generator=generator).double()
        patterns = patterns.clamp_min(0) if number % 2 else patterns.float()
        patterns.requires_grad_()
        made = make(patterns)
        (made**3).sum().backward()
        yield from (made, patterns.grad)


SAME_BITS = {
    "exitwave.optics.transfer:transfer_function": lenses,
    "exitwave.simulate.exit_waves:simulate": partial(of_atoms, flat=False),
    "exitwave.simulate.exit_waves:projected_potential": partial(of_atoms, flat=True),
    "exitwave.networks.scannet:_Encoder": encoders,
    "exitwave.retrieve.learned_scan:predict": predictions,
    "exitwave.papers.cao2020.methods:coarse": coarsened,
}
# Sums in a library of matrices, which may take another way on another processor.
ROUNDED = {"exitwave.networks.scannet:_Encoder": 1e-6}


@pytest.mark.parametrize("key", KEYS)
def test_none_makes_another_result(key):
    module, name = key.split(":")
    now = getattr(importlib.import_module(module), name)
    if key not in SAME_BITS:
        assert key.startswith(PLUMBING)
        return
    pairs = list(zip(SAME_BITS[key](now), SAME_BITS[key](before(key)), strict=True))
    assert len(pairs) > 15
    for one, other in pairs:
        assert other.abs().max() > 0  # not NaN either
        if not torch.equal(one, other):
            assert (one - other).abs().max() <= ROUNDED.get(key, 0.0) * other.abs().max()


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
