"""Every number of Leth Larsen et al. 2022, per scale.

What the paper leaves out is taken from the authors' earlier code, or chosen here, and marked so.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from exitwave.papers.parameters import PaperParameters, Scale
from exitwave.project import specimen_of_scale
from exitwave.simulate.exit_waves import Multislice
from exitwave.simulate.focal_series import Ranges
from exitwave.specimens.flakes import LARGEST_TILT

DataSet = Literal["mos2", "supported", "materials"]


class Parameters(PaperParameters):
    """Parameters of the focal-series study; lengths in Å, energies in eV, angles in rad.

    The seed is that of the network: its first weights, its order of samples and its microscope conditions.
    """

    presets: ClassVar[Mapping[Scale, Mapping[str, Any]]] = {
        "smoke": {
            "flakes": 12, "pixels": 64, "field": 96, "width": 4, "depth": 2, "epochs": 2, "batch": 2,
        },
        "workshop": {"flakes": 300, "pixels": 128, "width": 16, "epochs": 24},
        "gpu": {"flakes": 1600, "epochs": 100},
    }  # fmt: skip

    reads: Literal["flakes", "nothing"] = Field("flakes", description="stored files that a study reads")
    # Specimens (Sec. 2).
    data: DataSet = Field("mos2", description="MoS2, MoS2 on graphene, or many two-dimensional materials")
    flakes: int = Field(2000, ge=6, description="flakes of a data set; of many materials two for each")
    seen: float = Field(
        2 / 3, gt=0, lt=1, description="share of the flakes to learn from; half for MoS2 in the paper"
    )
    box: float = Field(25.6, gt=5, description="side of the box, Å; not in the paper")
    smallest: float = Field(10.0, gt=0, description="least mean diameter of a flake, Å; not in the paper")
    largest: float = Field(17.0, gt=0, description="greatest mean diameter of a flake, Å; not in the paper")
    vacancies: float = Field(0.05, ge=0, lt=1, description="share of the atoms that are removed")
    holes: float = Field(
        0.05, ge=0, lt=1, description="share of the atoms that are removed with their columns"
    )
    disorder: float = Field(0.01, ge=0, description="standard deviation of what moves atoms, Å")
    tilt: float = Field(LARGEST_TILT, ge=0, lt=0.8, description="largest tilt, rad")
    # Exit waves.
    energy: float = Field(50e3, gt=0, description="beam energy, eV")
    sampling: float = Field(0.05, gt=0, description="pixel size of the multislice calculation, Å")
    thickness: float = Field(0.2, ge=0, description="greatest extent of a slice, Å")
    displacement: float = Field(0.0030, ge=0, description="mean square displacement of an atom, Eq. 1, Å^2")
    beyond: float = Field(2.0, ge=0, description="from the last atom to the exit wave, Å")
    smear: float = Field(0.15, ge=0, description="standard deviation of the filter of the waves to learn, Å")
    # Images (Table 1).
    images: int = Field(3, ge=1, le=20, description="images of a series")
    span: float = Field(100.0, gt=0, description="defocus from the first image to the last, Å")
    least_pixel: float = Field(0.10, gt=0, description="smallest pixel of the images, Å")
    greatest_pixel: float = Field(0.11, gt=0, description="largest pixel of the images, Å")
    blur_unit: float = Field(
        0.1,
        gt=0,
        description="unit of the blur, Å: a pixel as in the earlier code, or 1 as in Table 1",
    )
    dose: float = Field(
        0.0, ge=0, description="electrons per Å^2 and image, of iteration; 0 for any of Table 1"
    )
    judged: int = Field(6, ge=1, description="unseen flakes whose waves are retrieved by iteration")
    pixels: int = Field(224, ge=16, description="pixels along each side in training; not in the paper")
    field: int = Field(224, ge=16, description="pixels along each side of unseen images; not in the paper")
    # Network (SOI Sec. S1 and S3).
    method: Literal["fusionnet", "unet"] = Field("fusionnet", description="the paper's network, or a U-Net")
    width: int = Field(32, ge=4, description="channels at full size")
    depth: int = Field(3, ge=1, le=5, description="poolings; from the earlier code")
    epochs: int = Field(200, ge=1, description="passes over the flakes")
    batch: int = Field(4, ge=1, description="series of one step; from the earlier code")
    rate: float = Field(5e-4, gt=0, description="rate of RMSprop")
    outside: Literal[
        "nothing", "threefold", "coma", "drift", "phonons", "defocus", "spread", "detector", "motion"
    ] = Field(
        "nothing",
        description="what of a series is outside Table 1, or told wrongly, for iteration",
        json_schema_extra={"later": True},
    )
    amount: float = Field(
        0.0,
        ge=0,
        description="of it, Å: C23, coma, or drift from image to image; of what is told wrongly, the factor",
        json_schema_extra={"later": True},
    )
    network: str = Field(
        "",
        description="run whose released network is used, for the studies that train none",
        json_schema_extra={"network_of": "larsen2022"},
    )

    def files(self) -> dict[str, Path]:
        """Return the file of the flakes, but where these are made."""
        found = super().files()
        if self.reads == "flakes":
            found[self.data] = specimen_of_scale("larsen2022", self.data, self.scale)
        return found

    @property
    def multislice(self) -> Multislice:
        """How exit waves are computed."""
        pixels = round(self.box / self.sampling)
        return Multislice(
            self.energy, self.sampling, (pixels, pixels), self.thickness, self.displacement, self.beyond
        )

    @property
    def ranges(self) -> Ranges:
        """What microscope conditions are drawn from."""
        return Ranges(
            energy=self.energy, span=self.span, sampling=(self.least_pixel, self.greatest_pixel),
            blur_unit=self.blur_unit,
        )  # fmt: skip
