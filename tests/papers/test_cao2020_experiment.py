"""What the page shows of a measured scan, and that it is what the command finds."""

import re
from pathlib import Path

import pytest

from exitwave.papers.cao2020 import experiment

KEPT = Path(__file__).parents[2] / "book" / "_static" / "rotavirus"
NOMINAL = 13.5, -126.0  # µm and degrees, written down with the scan


def numbers(text):
    """Return defocus, µm, and rotation, degrees."""
    defocus, rotation = (
        re.search(pattern, text)[1]
        for pattern in (r"defocus (?:of )?\+([\d.]+) µm", r"rotation .*?(-[\d.]+) deg")
    )
    return float(defocus), float(rotation)


@pytest.mark.parametrize("name", experiment.COMMANDS)
def test_what_is_kept(name):
    text = (KEPT / f"{name}.txt").read_text(encoding="utf-8")
    assert text.splitlines()[0] == f"$ exitwave {experiment.COMMANDS[name]}"
    defocus, rotation = numbers(text)
    assert defocus == pytest.approx(NOMINAL[0], rel=0.1)
    assert rotation == pytest.approx(NOMINAL[1], abs=12)
    assert (KEPT / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.external
def test_parallax_says_that_still(external_data):
    path = external_data / "4dstem_rotavirus" / "rotavirus_34x127x96x96_uint8.h5"
    if not path.exists():
        pytest.skip("no 4dstem_rotavirus in EXITWAVE_EXTERNAL_DATA")
    said, drawn = experiment.said_and_drawn(path, "parallax")
    kept = (KEPT / "parallax.txt").read_text(encoding="utf-8")
    assert said.splitlines()[0] == kept.splitlines()[0]
    # Another processor rounds otherwise; the last digit may follow.
    assert numbers(said) == pytest.approx(numbers(kept), rel=0.01)
    assert drawn.startswith(b"\x89PNG")
