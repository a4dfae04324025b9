"""Large-angle convergent-beam electron diffraction by Bloch waves, batched over tilts."""

from exitwave.simulate.lacbed.beams import Beams, Geometry, select_beams
from exitwave.simulate.lacbed.disks import Pattern, record, simulate
from exitwave.simulate.lacbed.folded import PeriodicGeometry, simulate_folded
from exitwave.simulate.lacbed.potential import Absorption, potential_coefficients, structure_factors

__all__ = [
    "Absorption",
    "Beams",
    "Geometry",
    "Pattern",
    "PeriodicGeometry",
    "potential_coefficients",
    "record",
    "select_beams",
    "simulate",
    "simulate_folded",
    "structure_factors",
]
