"""Every number of the comparison, per scale: one specimen, one dose, the microscope of each method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from exitwave.papers.parameters import PaperParameters, Scale


class Parameters(PaperParameters):
    """Parameters of the comparison; lengths in Å, energies in eV, angles in rad.

    The seed is that of the flake, of the atoms that it lacks, and of all electrons.
    """

    presets: ClassVar[Mapping[Scale, Mapping[str, Any]]] = {
        "smoke": {
            "box": 14.4, "diameter": 7.0, "vacancies": 1, "scan": 36, "evaluations": 20, "epochs": 3,
            "iterations": 20,
        },
        "gpu": {"box": 38.4, "diameter": 28.0, "scan": 96, "evaluations": 200, "iterations": 200},
        "paper": {"box": 38.4, "diameter": 28.0, "scan": 96, "evaluations": 200, "iterations": 200},
    }  # fmt: skip

    # The specimen.
    kind: Literal["free", "supported"] = Field("free", description="MoS2 in vacuum, or on graphene")
    trouble: Literal["none", "focus", "astigmatism", "thick"] = Field(
        "none", description="what nobody is told: another focus, astigmatism, or several layers of MoS2"
    )
    dose: float = Field(1e4, gt=0, description="electrons per Å^2 through the specimen, in all")
    box: float = Field(20.8, gt=5, description="side of the periodic box, Å")
    diameter: float = Field(13.0, gt=3, description="mean diameter of the flake, Å")
    vacancies: int = Field(2, ge=1, description="sulphur atoms that are missing, each of another column")
    displacement: float = Field(0.003, ge=0, description="mean square displacement along each axis, Å^2")
    # Images and holograms.
    energy: float = Field(80e3, gt=0, description="beam energy, eV")
    network_energy: float = Field(
        50e3, gt=0, description="that of the images from which the networks of focal series have learned, eV"
    )
    pixel: float = Field(0.1, gt=0, description="of images, Å")
    defocus: float = Field(30.0, description="of the first image, underfocus positive, Å")
    span: float = Field(100.0, gt=0, description="defocus from the first image to the last, Å")
    alone: float = Field(80.0, description="defocus of the image that has to do alone, Å")
    focal_spread: float = Field(7.0, gt=0, description="standard deviation of the focus, Å")
    blur: float = Field(0.05, gt=0, description="standard deviation of the vibration of images, Å")
    fringes: float = Field(3.75, gt=0, description="carrier frequency of holograms, 1/Å")
    contrast: float = Field(0.3, gt=0, le=1, description="of the fringes without a specimen")
    # 4D-STEM.
    semiangle: float = Field(0.0214, gt=0, lt=0.2, description="of the probe, rad")
    scan: int = Field(52, ge=16, description="probe positions along each side of the box")
    blurred: float = Field(150.0, description="defocus of the probe for aligned bright-field images, Å")
    # Methods.
    evaluations: int = Field(80, ge=2, description="of the likelihood of images")
    iterations: int = Field(60, ge=1, description="of Gerchberg and Saxton's method at most")
    epochs: int = Field(10, ge=1, description="of ptychography")
    network: str = Field(
        "mos2",
        description="run of larsen2022 whose released network is used; supported for MoS2 on graphene",
        json_schema_extra={"network_of": "larsen2022"},
    )
    scanner: str = Field(
        "general",
        description="run of cao2020 whose released network is used",
        json_schema_extra={"network_of": "cao2020"},
    )

    @property
    def step(self) -> float:
        """Of the scan and of the grid on which all phases are compared, Å."""
        return self.box / self.scan
