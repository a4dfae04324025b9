"""Every number of Zhou et al. 2020, per scale.

What the paper leaves out (microscope, inner potential, absorption) is taken from the public code of
the same group and marked so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from exitwave.papers.parameters import PaperParameters, Scale
from exitwave.specimens import magnets

MILLIMETRE = 1e7  # Å


class Parameters(PaperParameters):
    """Parameters of the Lorentz study; lengths in Å, energies in eV, angles in rad."""

    presets: ClassVar[Mapping[Scale, Mapping[str, Any]]] = {
        "smoke": {"pixels": 128, "sampling": 100.0, "iterations": 40, "live_iterations": 20},
    }

    # Field of view (Methods C).
    pixels: int = Field(512, ge=32, le=8192, description="pixels along each side")
    sampling: float = Field(50.0, gt=0, description="pixel size, Å")
    # Specimen: Permalloy of the template of the group's public code, apart from the thickness.
    magnetisation: str | None = Field(
        None, description="OVF file to use instead of the ten bars", json_schema_extra={"file": True}
    )
    thickness: float = Field(100.0, gt=0, description="film thickness, Å")
    saturation: float = Field(magnets.PERMALLOY_SATURATION, gt=0, description="saturation magnetisation, A/m")
    inner_potential: float = Field(magnets.PERMALLOY_INNER_POTENTIAL, description="mean inner potential, V")
    absorption_length: float = Field(
        magnets.PERMALLOY_ABSORPTION_LENGTH, gt=0, description="1/e length of the amplitude, Å"
    )
    # Microscope: aberration-corrected Lorentz template of the group's public code.
    energy: float = Field(200e3, gt=0, description="beam energy, eV")
    spherical_aberration: float = Field(2e6, description="spherical aberration C30, Å")
    focal_spread: float = Field(800.0, ge=0, description="standard deviation of the defocus, Å")
    convergence: float = Field(1e-5, ge=0, description="1/e half width of the illumination angles, rad")
    # Images.
    focus: Literal["moderate", "strong", "hybrid"] = Field("moderate", description="which defoci")
    images: int = Field(2, ge=2, le=20, description="number of defocused images, even")
    noise: float = Field(0.0, ge=0, le=1, description="standard deviation over vacuum intensity")
    # Gradient retrieval (Methods A).
    iterations: int = Field(5000, ge=1, description="steps of Adam")
    live_iterations: int = Field(600, ge=1, description="steps of Adam in the chapter's live cell")
    rate: float = Field(1.0, gt=0, description="learning rate of Adam, rad")
    start_phase: float = Field(0.5, description="constant starting phase, rad")

    @model_validator(mode="after")
    def _check_images(self) -> Self:
        if self.images % 2:
            raise ValueError("images must be even, half of them on either side: use 2, 4, ...")
        return self

    @property
    def defocus(self) -> tuple[float, ...]:
        """Defoci of the images in Å, underfocus positive.

        The paper's pairs and quartets are those for 2 and 4 images: +-0.15 mm (moderate), +-1.6 mm
        (strong), -0.15 and +1.6 mm (hybrid), and -0.1, -0.2, +1.5, +1.6 mm.
        """
        half = self.images // 2
        moderate = np.linspace(0.1, 0.2, half) if half > 1 else np.array([0.15])
        strong = np.linspace(1.5, 1.6, half) if half > 1 else np.array([1.6])
        under, over = {
            "moderate": (moderate, moderate),
            "strong": (strong, strong),
            "hybrid": (strong, moderate),
        }[self.focus]
        return tuple(float(d) for d in np.concatenate([-over, under]) * MILLIMETRE)
