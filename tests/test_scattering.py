"""Electron scattering factors: beside abTEM's, and where physics fixes them."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from exitwave.errors import InputError
from exitwave.optics import scattering
from exitwave.optics.scattering import scattering_factor

BOHR = 0.529177211
SQUARED = torch.logspace(-4, math.log10(400), 60, dtype=torch.float64)  # 1/Å²


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("table", ["kirkland", "lobato"])
def test_every_element_as_in_abtem(table):
    abtem = pytest.importorskip("abtem")
    from abtem.parametrizations import validate_parametrization
    from ase.data import chemical_symbols

    # In single precision Lobato's terms cancel to 1e-5.
    with abtem.config.set({"precision": "float64"}):
        theirs = validate_parametrization(table)
        for number in range(1, scattering.LAST_ELEMENT + 1):
            expected = theirs.scattering_factor(chemical_symbols[number])(SQUARED.numpy())
            found = scattering_factor(number, SQUARED, table).numpy()
            np.testing.assert_allclose(found, expected, rtol=1e-6, err_msg=chemical_symbols[number])


@given(number=st.integers(1, 103))
def test_nucleus_alone_scatters_far_out(number):
    # Mott and Bethe: f = (Z - f_x) / (2π² a0 q²), and f_x is gone at 50 1/Å but for the innermost electrons;
    # Lobato's functions have this limit by construction, their fit of it is good to two per cent.
    limit = number / (2 * math.pi**2 * BOHR)
    q2 = torch.tensor([2500.0], dtype=torch.float64)
    assert float(scattering_factor(number, q2, "lobato")) * 2500 == pytest.approx(limit, rel=0.02)
    # Kirkland's fit ends at 12 1/Å and leaves the limit free; a tenth still tells q from q / 2.
    assert float(scattering_factor(number, q2)) * 2500 == pytest.approx(limit, rel=0.1)


@given(number=st.integers(1, 103), table=st.sampled_from(["kirkland", "lobato"]))
def test_falls_from_the_middle_and_stays_positive(number, table):
    found = scattering_factor(number, SQUARED, table)
    assert (found > 0).all()
    assert (found.diff() <= 0).all()


def test_tables_agree_where_both_are_fitted():
    # Two independent fits; a wrong unit, column or definition of q would be far outside 3%.
    q2 = torch.linspace(0.05, 6.0, 40, dtype=torch.float64) ** 2
    for number in (1, 6, 8, 22, 31, 33, 38, 79):
        one, two = (scattering_factor(number, q2, table) for table in ("kirkland", "lobato"))
        torch.testing.assert_close(one, two, rtol=0.03, atol=0)


def test_forward_value_of_hydrogen_is_half_the_bohr_radius():
    # f(0) = Z <r²> / (3 a0), and <r²> = 3 a0² in the ground state.
    at_rest = torch.zeros(1, dtype=torch.float64)
    for table in ("kirkland", "lobato"):
        assert float(scattering_factor(1, at_rest, table)) == pytest.approx(BOHR, rel=1e-3)


@pytest.mark.parametrize("number", [0, -1, 104])
def test_unknown_element(number):
    with pytest.raises(InputError, match=rf"{number}\b.*1 to 103"):
        scattering_factor(number, SQUARED)


def test_unknown_table():
    with pytest.raises(InputError, match=r"'peng'.*kirkland or lobato"):
        scattering_factor(1, SQUARED, "peng")
