"""The methods in words: what they are called, are given, must know, and take for granted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Words:
    """A method in words.

    Attributes
    ----------
    title, short : str
        The second is for small pictures.
    given : str
    told : str
        Of the microscope.
    assumes : str
        Of the specimen.
    """

    title: str
    short: str
    given: str
    told: str
    assumes: str


_LENS = "focus, focal spread, MTF, dose; finds astigmatism, coma"
_ALL = "aberrations, focal spread, MTF"
_ATOMS = "few thin planes of atoms"
WORDS = {
    "single": Words("likelihood, 1 image", "likelihood, 1", "80 keV", _LENS, _ATOMS),
    "moduli": Words("Gerchberg-Saxton, 3 images", "Gerchberg-S., 3", "80 keV", _ALL, "nothing"),
    "eleven": Words("Gerchberg-Saxton, 11 images", "Gerchberg-S., 11", "80 keV", _ALL, "nothing"),
    "likelihood": Words("likelihood, 3 images", "likelihood, 3", "80 keV", _LENS, _ATOMS),
    "network": Words(
        "network, 3 images", "network, 3", "50 keV", "nothing: energy, pixel, span as in training",
        "specimens as in training",
    ),
    "refined": Words(
        "network, refined", "refined, 3", "3 images, 50 keV", _LENS, "the network is nearly right"
    ),
    "holography": Words(
        "holography", "holography", "1 hologram, 1 of vacuum", "aberrations", "vacuum beside it"
    ),
    "mass": Words(
        "integrated centre of mass", "centre of mass", "1 scan", "steps, angles of the detector", "one phase"
    ),
    "side_band": Words(
        "single side band", "single side band", "1 scan", "semi-angle, aberrations, steps", "a weak phase"
    ),
    "parallax": Words(
        "parallax", "parallax", "1 scan out of focus", "semi-angle, aberrations, steps", "a weak phase"
    ),
    "ptychography": Words(
        "ptychography", "ptychography", "1 scan", "semi-angle, steps; finds the probe from near", "one phase"
    ),
    "scanner": Words(
        "network of scans", "network of scans", "1 scan", "semi-angle, focus, steps, dose", "a thin layer"
    ),
}  # fmt: skip
