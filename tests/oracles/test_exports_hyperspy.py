"""HyperSpy's own reading of signals and files that are made for it."""

from __future__ import annotations

import numpy as np
import pytest

from exitwave import exports, records

hs = pytest.importorskip("hyperspy.api")
pytestmark = pytest.mark.oracle

RNG = np.random.default_rng(4)
WAVE = RNG.normal(size=(12, 20)) + 1j * RNG.normal(size=(12, 20))
STACK = RNG.random((3, 12, 20))


def axes_of(signal):
    return {axis.name: (axis.size, axis.units, axis.axis[:2].tolist()) for axis in signal.axes_manager._axes}


@pytest.mark.parametrize("by_file", [False, True])
def test_a_wave_is_a_complex_signal(tmp_path, by_file):
    record = records.wave(WAVE, sampling=(0.12, 0.1), energy=80e3)
    made = exports.to_hyperspy(record)
    if by_file:
        made = hs.load(exports.export(record, tmp_path / "wave.hspy"))
    assert type(made) is hs.signals.ComplexSignal2D
    np.testing.assert_allclose(made.phase.data, np.angle(WAVE))
    assert axes_of(made) == {
        "y": (12, "Å", pytest.approx([0, 0.12])), "x": (20, "Å", pytest.approx([0, 0.1]))
    }  # fmt: skip
    assert made.metadata.Acquisition_instrument.TEM.beam_energy == 80
    # A hundred pixels a nm, turned or mirrored nowhere.
    assert made.isig[0.5:, 0.36:].data[0, 0] == WAVE[3, 5]


@pytest.mark.parametrize("by_file", [False, True])
def test_images_are_navigated_by_their_defoci(tmp_path, by_file):
    record = records.images(STACK, defocus=[-100.0, 20.0, 500.0], sampling=2.5, energy=200e3)
    record["exposure"] = ("defocus", np.array([1.0, 2.0, 3.0]), {"units": "1", "long_name": "exposure"})
    made = exports.to_hyperspy(record)
    if by_file:
        made = hs.load(exports.export(record, tmp_path / "images.hspy"))
    assert type(made) is hs.signals.Signal2D
    assert made.axes_manager.navigation_axes[0].axis.tolist() == [-100, 20, 500]
    np.testing.assert_array_equal(made.inav[2].data, STACK[2])
    curve = exports.to_hyperspy(record, "exposure")
    assert type(curve) is hs.signals.Signal1D
    np.testing.assert_array_equal(curve.data, [1, 2, 3])
