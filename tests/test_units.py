"""Quantities as people type them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exitwave.errors import InputError
from exitwave.units import quantities, quantity


@pytest.mark.parametrize(
    ("text", "unit", "expected"),
    [
        ("50", "Å", 50.0),
        (" 50 ", "Å", 50.0),
        ("-1.5e6", "Å", -1.5e6),
        ("5nm", "Å", 50.0),
        ("5 nm", "Å", 50.0),
        ("-0.15mm", "Å", -1.5e6),
        ("+2e-3 mm", "Å", 2e4),
        ("3um", "Å", 3e4),
        ("3\u00b5m", "Å", 3e4),  # micro sign
        ("3\u03bcm", "Å", 3e4),  # Greek mu
        ("7 \u00c5", "Å", 7.0),  # letter
        ("7\u212b", "Å", 7.0),  # sign of the unit
        ("7 angstrom", "Å", 7.0),
        ("20 pm", "Å", 0.2),
        ("0", "Å", 0.0),
        ("200keV", "eV", 200e3),
        ("200 kV", "eV", 200e3),
        ("200e3", "eV", 200e3),
        ("0.3 MeV", "eV", 300e3),
    ],
)
def test_reads(text, unit, expected):
    assert quantity(text, unit, "pixel") == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("unit", ["Å", "eV"])
@pytest.mark.parametrize(
    "text",
    [
        "",
        "nm",
        "abc",
        "5 parsnips",
        "5 s",
        "5 nm/s",
        "5 1/nm",
        "nan",
        "inf",
        "-inf nm",
        "1e400",
        "5,5",
        "5nm 5nm",
    ],
)
def test_refuses_in_one_line_that_names_the_text(text, unit):
    with pytest.raises(InputError, match="pixel") as error:
        quantity(text, unit, "pixel")
    assert repr(text) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("text", "unit"), [("200 keV", "Å"), ("200 kV", "Å"), ("5 nm", "eV")])
def test_length_is_no_energy(text, unit):
    with pytest.raises(InputError, match=text):
        quantity(text, unit, "energy")


@given(
    st.floats(-1e6, 1e6, allow_nan=False),
    st.sampled_from([("pm", -2), ("nm", 1), ("um", 4), ("mm", 7), ("m", 10)]),
)
def test_units_are_powers_of_ten(number, unit):
    name, power = unit
    expected = number * 10.0**power
    for text in (f"{number!r}{name}", f"{number!r} {name}"):
        assert math.isclose(quantity(text, "Å", "defocus"), expected, rel_tol=1e-9, abs_tol=1e-300)


def test_list():
    assert quantities("-0.15mm, 0,150um", "Å", "defocus") == pytest.approx([-1.5e6, 0.0, 1.5e6])
    with pytest.raises(InputError, match="defocus ''"):
        quantities("0.15mm,", "Å", "defocus")
