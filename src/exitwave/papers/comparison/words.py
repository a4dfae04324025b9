"""The methods in words: what they are called, are given, must know, and take for granted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Words:
    """A method in words.

    Attributes
    ----------
    title : str
    given : str
    told : str
        Of the microscope.
    assumes : str
        Of the specimen.
    """

    title: str
    given: str
    told: str
    assumes: str


_LENS = "defocus, focal spread, MTF, dose; finds astigmatism and coma"
_ALL = "all aberrations, focal spread, MTF"
_ATOMS = "few thin planes of atoms"
WORDS = {
    "single": Words("likelihood, 1 image", "1 image", _LENS, _ATOMS),
    "moduli": Words("Gerchberg-Saxton, 3 images", "3 images", _ALL, "nothing"),
    "eleven": Words("Gerchberg-Saxton, 11 images", "11 images", _ALL, "nothing"),
    "likelihood": Words("likelihood, 3 images", "3 images", _LENS, _ATOMS),
    "network": Words(
        "network, 3 images", "3 images, 50 keV", "nothing; energy, pixel and span are those of its training",
        "specimens as in its training",
    ),
    "refined": Words("network, refined", "3 images, 50 keV", _LENS, "the network is nearly right"),
    "holography": Words("holography", "1 hologram, 1 of vacuum", "all aberrations", "vacuum beside it"),
    "mass": Words("integrated centre of mass", "1 scan", "steps, angles of the detector", "one phase"),
    "side_band": Words("single side band", "1 scan", "semi-angle, aberrations, steps", "a weak phase"),
    "parallax": Words(
        "parallax", "1 scan, out of focus", "semi-angle, aberrations, steps", "a weak phase"
    ),
    "ptychography": Words(
        "ptychography", "1 scan", "semi-angle, steps, about the defocus; finds the probe", "one phase"
    ),
    "scanner": Words(
        "network of scans", "1 scan", "semi-angle, defocus, steps, dose", "a thin layer, as in its training"
    ),
}  # fmt: skip
