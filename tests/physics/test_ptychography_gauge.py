"""What no pattern can tell is matched, and nothing else."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from exitwave import optics
from exitwave.errors import InputError
from exitwave.retrieve.ptychography_gauge import matched

STEP, SHAPE = (0.25, 0.3), (24, 20)


def smooth(seed=0):
    ky, kx = optics.frequency_grid(SHAPE, STEP)
    noise = torch.fft.fft2(
        torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    )
    phase = torch.fft.ifft2(noise * torch.exp(-(ky**2 + kx**2) / (2 * 0.3**2))).real
    return torch.polar(torch.ones(SHAPE).double(), 0.5 * phase / phase.std())


@settings(max_examples=20, deadline=None)
@given(
    st.floats(-0.2, 0.2), st.floats(-0.2, 0.2), st.floats(-0.1, 0.1), st.floats(-0.1, 0.1),
    st.floats(-3, 3), st.floats(0.5, 2),
)  # fmt: skip
def test_gauge_is_undone(dy, dx, slope_y, slope_x, phase, factor):
    true = smooth()
    ky, kx = optics.frequency_grid(SHAPE, STEP)
    moved = torch.fft.ifft2(torch.fft.fft2(true) * torch.exp(-2j * math.pi * (ky * dy + kx * dx)))
    y, x = (torch.arange(n).double() * step for n, step in zip(SHAPE, STEP, strict=True))
    ramp = slope_y * y[:, None] + slope_x * x + phase
    # Moved with its ramp, it meets the edges of the field: inside a margin of a pixel all fits.
    found = matched(factor * torch.polar(torch.ones(SHAPE).double(), ramp) * true, true, STEP)
    assert torch.allclose(found, true, atol=1e-6)
    assert torch.allclose(matched(factor * moved, true, STEP, margin=2), true, atol=1e-6)


def test_another_object_stays_another():
    true = smooth()
    assert float((matched(true.conj(), true, STEP) - true).abs().square().mean().sqrt()) > 0.3
    assert float((matched(smooth(1), true, STEP) - true).abs().square().mean().sqrt()) > 0.3


@pytest.mark.parametrize(
    ("found", "margin", "named"),
    [
        (torch.ones(4, 4), 0, "two of one shape"),
        (torch.ones(SHAPE), 10, "a margin of 10 pixels leaves nothing"),
    ],
)
def test_bad_input_is_named(found, margin, named):
    with pytest.raises(InputError, match=named):
        matched(found, smooth(), STEP, margin=margin)
