"""Every number of Zhou et al. 2020, per scale.

What the paper leaves out (microscope, inner potential, absorption) is taken from the public code of
the same group and marked so.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from exitwave.errors import InputError
from exitwave.papers.parameters import PaperParameters, Scale
from exitwave.project import specimen_file
from exitwave.specimens import magnets, target

MILLIMETRE = 1e7  # Å


class Parameters(PaperParameters):
    """Parameters of the Lorentz study; lengths in Å, energies in eV, angles in rad."""

    presets: ClassVar[Mapping[Scale, Mapping[str, Any]]] = {
        "smoke": {"pixels": 128, "sampling": 200.0, "iterations": 40, "live_iterations": 20},
    }

    # Field of view (Methods C).
    pixels: int = Field(512, ge=32, le=8192, description="pixels along each side")
    sampling: float = Field(50.0, gt=0, description="pixel size, Å")
    # Specimen: Permalloy of the template of the group's public code, apart from the thickness.
    specimen: Literal["target", "bars"] = Field("target", description="relaxed resolution target or ten bars")
    magnetisation: str | None = Field(
        None, description="OVF file to use instead", json_schema_extra={"file": True}
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
    focus: Literal["moderate", "strong", "hybrid", "quadratic"] = Field(
        "moderate", description="which defoci"
    )
    images: int = Field(2, ge=2, le=24, description="number of defocused images, even")
    first_defocus: float | None = Field(None, description="with second_defocus: a pair of its own, Å")
    second_defocus: float | None = Field(None, description="with first_defocus: a pair of its own, Å")
    noise: float = Field(0.0, ge=0, le=1, description="standard deviation over vacuum intensity")
    dose: float | None = Field(None, gt=0, description="electrons per Å^2 and image, Poisson noise instead")
    # Gradient retrieval (Methods A).
    iterations: int = Field(5000, ge=1, description="steps of Adam")
    live_iterations: int = Field(300, ge=1, description="steps of Adam in the chapter's live cell")
    rate: float = Field(1.0, gt=0, description="learning rate of Adam, rad")
    cycle: int = Field(0, ge=0, description="steps of one cycle of the rate, 0 for a constant rate")
    start_phase: float = Field(0.5, description="constant starting phase, rad")

    @model_validator(mode="after")
    def _check_images(self) -> Self:
        if self.images % 2:
            raise ValueError("images must be even, half of them on either side: use 2, 4, ...")
        if (self.first_defocus is None) != (self.second_defocus is None):
            raise ValueError("first_defocus and second_defocus belong together: give both or neither")
        if self.specimen == "target" and self.magnetisation is None:
            try:
                target.scale_of(self.pixels, self.sampling)
            except InputError as error:
                raise ValueError(f"{error} (specimen=bars)") from None
        return self

    def files(self) -> dict[str, Path]:
        """Return the files that a study reads: the OVF file that is named, or the stored target."""
        found = super().files()
        if self.specimen == "target" and self.magnetisation is None:
            found["specimen"] = specimen_file("zhou2020", "target")
        return found

    @property
    def defocus(self) -> tuple[float, ...]:
        """Defoci of the images in Å, underfocus positive.

        The paper's pairs and quartets are those for 2 and 4 images: +-0.15 mm (moderate), +-1.6 mm
        (strong), -0.15 and +1.6 mm (hybrid), and -0.1, -0.2, +1.5, +1.6 mm. ``quadratic`` is the series
        of the experiment, +-1.44 mm (n / N)^2.
        """
        if self.first_defocus is not None and self.second_defocus is not None:
            return (self.first_defocus, self.second_defocus)
        half = self.images // 2
        moderate = np.linspace(0.1, 0.2, half) if half > 1 else np.array([0.15])
        strong = np.linspace(1.5, 1.6, half) if half > 1 else np.array([1.6])
        quadratic = 1.44 * (np.arange(1, half + 1) / half) ** 2
        under, over = {
            "moderate": (moderate, moderate),
            "strong": (strong, strong),
            "hybrid": (strong, moderate),
            "quadratic": (quadratic, quadratic),
        }[self.focus]
        return tuple(float(d) for d in np.concatenate([-over, under]) * MILLIMETRE)
