"""Every number of Cao et al. 2020, per scale.

The paper gives none but the specimens, the detector and the shape of its networks: what is here was chosen,
after the experiment of its label (Jiang et al., Nature 559, 343 (2018): 80 kV, 21.4 mrad) where it is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from exitwave.papers.parameters import PaperParameters, Scale


class Parameters(PaperParameters):
    """Parameters of the 4D-STEM study; lengths in Å, energies in eV, angles in rad.

    The seed is that of electrons and of networks; atoms are always arranged alike.
    """

    presets: ClassVar[Mapping[Scale, Mapping[str, Any]]] = {
        "smoke": {
            "scan": 29, "repeats": 2, "thickness": 16.0, "phonons": 1, "grid": 96, "semiangle": 0.03,
            "detector": 24, "pixel": 0.0062, "epochs": 2, "iterations": 3, "cluster": 3,
            "materials": 3, "steps": 2, "taught": 2, "features": 4, "width": 4,
        },
        "workshop": {"epochs": 16, "iterations": 10},
        "gpu": {"scan": 131, "phonons": 16, "epochs": 100, "iterations": 100},
    }  # fmt: skip

    # The microscope.
    energy: float = Field(80e3, gt=0, description="beam energy, eV")
    semiangle: float = Field(0.0214, gt=0, lt=0.2, description="of the probe, rad")
    defocus: float = Field(0.0, description="of the probe, underfocus positive, Å")
    dose: float = Field(1e5, gt=0, description="electrons per Å^2")
    drift: float = Field(0.0, description="of the specimen along y and x, from first to last position, Å")
    # The detector: square pixels, each of which counts electrons and never saturates, as EMPAD's.
    pixel: float = Field(0.0036, gt=0, description="of the detector, rad")
    detector: int = Field(48, ge=16, multiple_of=8, description="pixels along each side of a pattern")
    inner: float = Field(
        0.06, gt=0, description="inner angle of the annular dark field, rad; to the detector's edge"
    )
    # Specimens: repeats of a rectangular cell of PrScO3, and as large a field of MoS2.
    repeats: int = Field(4, ge=1, description="cells of PrScO3 along each side of the field")
    grid: int = Field(160, ge=32, description="pixels along each side of the field")
    # A prime: no cell of the crystal is met at the same positions as another.
    scan: int = Field(67, ge=16, description="probe positions along each side of the field")
    thickness: float = Field(200.0, gt=0, description="of PrScO3, Å")
    phonons: int = Field(4, ge=1, description="arrangements of atoms that move, whose patterns are averaged")
    displacement: float = Field(0.005, ge=0, description="mean square displacement along each axis, Å^2")
    # The label.
    iterations: int = Field(60, ge=1, description="epochs of ptychography")
    # Networks: unknown in the paper.
    cluster: int = Field(5, ge=1, le=7, description="patterns along each side of a cluster, odd")
    rings: int = Field(16, ge=2, description="parameters of the linear model's mask")
    channels: int = Field(8, ge=1, description="of the first 4D convolution; the second has twice as many")
    dropout: float = Field(0.2, ge=0, lt=1, description="share of features that training leaves out")
    epochs: int = Field(40, ge=1, description="passes over the clusters")
    batch: int = Field(32, ge=1, description="clusters of one step")
    rate: float = Field(2e-3, gt=0, description="learning rate of Adam")
    # Of the network that learns from many materials, which is not in the paper.
    materials: int = Field(160, ge=1, description="scans it learns from", json_schema_extra={"later": True})
    steps: int = Field(1000, ge=1, description="updates of it", json_schema_extra={"later": True})
    taught: int = Field(
        200,
        ge=1,
        description="updates of it by one scan alone, without a label",
        json_schema_extra={"later": True},
    )
    features: int = Field(16, ge=1, description="of a pattern", json_schema_extra={"later": True})
    width: int = Field(16, ge=1, description="channels at full size", json_schema_extra={"later": True})
    told: bool = Field(
        True, description="it is told dose, semiangle and defocus", json_schema_extra={"later": True}
    )
