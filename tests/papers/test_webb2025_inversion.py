"""The inverse by physics: derivatives in closed form, and potentials that it must find."""

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from exitwave import metrics
from exitwave.errors import InputError
from exitwave.papers.webb2025 import inversion, projection
from exitwave.papers.webb2025.parameters import Parameters
from exitwave.papers.webb2025.projection import Known, model_of
from exitwave.simulate import lacbed
from exitwave.specimens.prototypes import known_crystals

pytestmark = pytest.mark.usefixtures("one_thread")

A = 4.123  # Å, CsCl


@cache
def crystals():
    return known_crystals()


def crystal(name="CsCl", prototype="CsCl"):
    return next(c for c in crystals() if (c.name, c.prototype) == (name, prototype))


def known(symmetry="4mm", limit=2.3 / A, thickness=(500.0,), pixels=12, **more):
    field = lacbed.Geometry(half_angle=0.1 / A, pixels=pixels)
    return Known(**{"lattice_parameter": A, "thickness": thickness, "geometry": field, "limit": limit,
                    "symmetry": symmetry} | more)  # fmt: skip


def truth_of(model, specimen=None):
    specimen = specimen or crystal()
    return model.unknowns(lambda hkl: lacbed.potential_coefficients(specimen, hkl, 200e3))


def pattern_of(given, specimen=None):
    made = lacbed.simulate(
        specimen or crystal(), given.thickness, given.geometry, lacbed.Beams(limit=given.limit),
        dtype=torch.float64, solver="diagonalise", verify=False,
    )  # fmt: skip
    return made.intensity[0]


@pytest.mark.parametrize(
    ("name", "prototype", "centring", "symmetry"),
    [
        ("CsCl", "CsCl", "P", "4mm"), ("W", "bcc", "I", "4mm"), ("CaF2", "fluorite", "F", "2mm"),
        ("GaAs", "zincblende", "F", "4"), ("SrTiO3", "perovskite", "P", "2"),
    ],
)  # fmt: skip
def test_model_is_the_simulator(name, prototype, centring, symmetry):
    one = crystal(name, prototype)
    a = one.lattice_parameter
    limit = math.sqrt(20 / (math.pi * projection.SHARE[centring])) / a
    given = Known(a, (300.0, 700.0), lacbed.Geometry(half_angle=0.1 / a, pixels=8), limit, centring, symmetry)
    model = model_of(given)
    found = model.intensity(truth_of(model, one))[:, model.membership].reshape(2, 8, 8)
    assert (found - pattern_of(given, one)).abs().max() < 1e-9


@pytest.mark.parametrize("symmetry", ["4mm", "2"])
@pytest.mark.parametrize("pixels", [4, 5])
@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_jacobian_is_that_of_finite_differences_also_where_states_are_degenerate(symmetry, pixels, strength):
    # An odd field has the zone axis itself: there, and everywhere without potential, states come in pairs.
    model = model_of(known(symmetry, pixels=pixels, thickness=(200.0, 900.0)))
    at = strength * truth_of(model)
    jacobian = model.jacobian(model.waves(at))
    step = 1e-5 * torch.eye(len(at), dtype=torch.float64)
    for i in range(len(at)):
        central = (model.intensity(at + step[i]) - model.intensity(at - step[i])) / 2e-5
        # Error of central differences: h² times a third derivative, of the order (π U t / K)³ < 10.
        assert torch.allclose(jacobian[..., i], central, atol=1e-8)
    if strength == 0.0:
        assert jacobian.abs().max() < 1e-12  # a flat start has no slope


def test_jacobian_agrees_with_automatic_differentiation_of_the_chebyshev_solver():
    model = model_of(known(pixels=5))
    at = truth_of(model)
    values = (model.size * at).clone().requires_grad_(True)
    padded = torch.cat([torch.zeros(1, dtype=torch.float64), values])
    setup = replace(model.setup, coupling=padded[model.index])
    problem = setup.problem(model.tilts, model.known.geometry.wavenumber)
    wave = lacbed.propagation.chebyshev(
        problem, torch.tensor([500.0], dtype=torch.float64), torch.tensor([0]), tolerance=1e-10
    )
    (wave.abs() ** 2).sum().backward()
    expected = values.grad * model.size
    found = model.jacobian(model.waves(at)).sum((0, 1))
    assert torch.allclose(found, expected, atol=1e-7 * float(expected.abs().max()))


def test_image_is_that_of_the_paper_up_to_its_resolution():
    model = model_of(known(limit=6 / A))
    image = model.image(truth_of(model), 32)
    row, column = divmod(int(image.argmax()), 32)
    assert (row, column) in {(0, 0), (16, 16)}  # caesium or chlorine column
    at = truth_of(model)
    assert torch.allclose(model.from_image(image), at, atol=1e-9 * float(at.abs().max()))


@given(row=st.integers(0, 31), column=st.integers(0, 31), offset=st.floats(-3, 3), scale=st.floats(0.1, 10))
@settings(max_examples=15, deadline=None)
def test_origin_and_offset_of_a_start_change_nothing(row, column, offset, scale):
    model = model_of(known())
    at = truth_of(model)
    moved = torch.roll(model.image(at, 32), (row, column), (0, 1))
    found = model.from_image(scale * moved + offset) / scale
    # The axis found may be the other one of the cell, from which the pattern is the same.
    assert torch.allclose(model.intensity(found), model.intensity(at), atol=1e-9)


@pytest.mark.parametrize("symmetry", ["4mm", "2mm"])
def test_truth_is_found_from_a_near_image(symmetry):
    given = known(symmetry, pixels=16)
    model = model_of(given)
    truth = truth_of(model)
    noise = torch.randn(len(truth), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    image = inversion.stretched(model.image(truth * (1 + 0.05 * noise)))
    found = inversion.retrieve_potential(pattern_of(given), given, torch.roll(image, (5, 9), (0, 1)))
    expected = model.image(truth)
    best = inversion.scores(found.potential, expected)
    assert found.misfit[-1] < 1e-3 < found.misfit[0]
    assert best["mse_shifted"] < 1e-6  # 1e-3 of the range, root mean square
    assert best["r_shifted"] > 1 - 1e-5
    assert found.potential.std() == pytest.approx(float(expected.std()), rel=1e-3)  # absolute scale


def test_truth_is_found_from_atoms_on_special_positions():
    given = known(pixels=16)
    seen = []
    found = inversion.retrieve_potential(
        pattern_of(given), given, "atoms", report=lambda n, misfit: seen.append((n, misfit))
    )
    model = model_of(given)
    assert found.misfit[-1] < 1e-3
    assert inversion.scores(found.potential, model.image(truth_of(model)))["mse_shifted"] < 1e-4
    assert found.misfit[-1] <= min(misfit for _, misfit in seen) * 1.1
    again = inversion.retrieve_potential(pattern_of(given), given, "atoms")
    assert torch.equal(found.potential, again.potential)  # deterministic


def test_the_fit_ends_at_the_noise():
    given = known(pixels=16)
    pattern = pattern_of(given)
    noise = 0.01
    # Equal for all pixels of an orbit, so that the average does not lower it.
    model = model_of(given)
    drawn = torch.randn(len(model.tilts), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    noisy = pattern + noise * drawn[model.membership].reshape(16, 16)
    start = model.image(truth_of(model))
    found = inversion.retrieve_potential(noisy, given, start, noise=noise)
    free = inversion.retrieve_potential(noisy, given, start)
    assert free.misfit[-1] < found.misfit[-1]
    assert len(found.misfit) < len(free.misfit)
    error = [inversion.scores(fit.potential, start)["mse"] for fit in (found, free)]
    assert error[0] < error[1]


def test_scores_are_those_of_the_best_shift():
    image = torch.rand(16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    moved = torch.roll(image, (3, -5), (0, 1))
    found = inversion.scores(2 * moved - 1, image)
    assert found["r_shifted"] == pytest.approx(1)
    assert found["mse_shifted"] == pytest.approx(0, abs=1e-12)
    assert found["r"] == pytest.approx(float(metrics.correlation_index(moved, image)))
    assert found["mse"] > 0.1  # of independent uniform numbers: 1/6


def test_study_judges_every_start():
    result = inversion.inversion(Parameters.at("smoke"))
    assert result.sizes["perturbation"] == 4
    assert float(result["atoms_misfit"]) == pytest.approx(float(result["misfit"][-1]))
    for name in ("atoms", "flat", "perturbed", "blurred"):
        assert (result[f"{name}_misfit"] < result[f"{name}_misfit_start"]).all()
        assert (result[f"{name}_mse_shifted"] <= result[f"{name}_mse"] + 1e-12).all()
    assert np.all(np.diff(result["perturbed_start_mse"]) > 0)
    assert {v.attrs["units"] for v in result.data_vars.values()} <= {"1", "s"}


GOOD = torch.linspace(-1, 1, 12)[:, None] ** 2 * torch.linspace(-1, 1, 12) ** 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: known(thickness=(0.0,)), r"thickness 0 Å must be above 0"),
        (lambda: known(thickness=()), "no thickness given"),
        (lambda: known(limit=0.1), r"beam limit 0.1 1/Å leaves one beam"),
        (lambda: known(symmetry="3"), "unknown symmetry '3': use 2, 4, 2mm, 4mm"),
        (lambda: known(centring="C"), "unknown centring 'C'"),
        (lambda: known(lattice_parameter=-1.0), "lattice parameter -1 Å"),
        (lambda: retrieve(GOOD[:5]), r"pattern of shape \(1, 5, 12\)"),
        (
            lambda: retrieve(torch.where(GOOD > 0.5, torch.nan, GOOD)),
            "pattern has values that are not finite",
        ),
        (lambda: retrieve(torch.ones(12, 12)), "pattern is constant"),
        (lambda: retrieve(GOOD, GOOD[:5]), r"start of shape \(5, 12\)"),
        (lambda: retrieve(GOOD, GOOD * torch.inf), "start has values that are not finite"),
        (lambda: retrieve(GOOD, torch.ones(12, 12)), "start is constant"),
        (lambda: retrieve(GOOD, "zero"), "unknown start 'zero'"),
        (lambda: retrieve(GOOD, "flat", noise=-1.0), "noise -1"),
    ],
)
def test_bad_input_is_named_in_one_line(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def retrieve(pattern, start="atoms", **more):
    return inversion.retrieve_potential(pattern, known(), start, **more)
