"""How far a retrieved wave, phase or image is from the truth.

Arrays have the shape (..., y, x). The two of a pair agree in (y, x); their leading axes broadcast and are
those of the result, which is one number for each image. What comes in decides what goes out: NumPy
arrays give a NumPy number or array, tensors (also one of the two) a differentiable tensor on their
device. Integers and booleans are taken as float64; single and double precision are kept.
"""

from exitwave.metrics.images import absolute_correlation, correlation, correlation_index
from exitwave.metrics.resolved import edge_fwhm, fourier_ring_correlation, resolution, ring_counts
from exitwave.metrics.statistics import Interval, paired_bootstrap
from exitwave.metrics.waves import align_phase, gradient_rmse, phase_rmse, relative_wave_error, wave_rmse

__all__ = [
    "Interval",
    "absolute_correlation",
    "align_phase",
    "correlation",
    "correlation_index",
    "edge_fwhm",
    "fourier_ring_correlation",
    "gradient_rmse",
    "paired_bootstrap",
    "phase_rmse",
    "relative_wave_error",
    "resolution",
    "ring_counts",
    "wave_rmse",
]
