"""Every number of Webb et al. 2025, per scale.

What the paper leaves out (beams, network, loss) is taken from the authors' public code and marked so.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from exitwave.papers.parameters import PaperParameters, Scale
from exitwave.project import specimen_of_scale


class Parameters(PaperParameters):
    """Parameters of the LACBED study; lengths in Å, energies in eV, angles in rad.

    The seed is the fold that is held out and the start of the weights; where the data set is made, the shard.
    """

    presets: ClassVar[Mapping[Scale, Mapping[str, Any]]] = {
        "smoke": {
            "crystals": 40, "shard": 20, "pixels": 32, "width": 8, "downsamplings": 2, "blocks": 1,
            "discriminator_width": 8, "discriminator_layers": 2, "epochs": 2,
        },
        "workshop": {
            "crystals": 420, "shard": 20, "largest_cell": 7.2, "pixels": 64, "width": 16, "blocks": 3,
            "downsamplings": 3, "discriminator_width": 16, "discriminator_layers": 2, "epochs": 40,
        },
        "gpu": {"crystals": 3003, "shard": 143},
    }  # fmt: skip

    # Data (Sec. 2).
    crystals: int = Field(14270, ge=20, description="crystals of the data set")
    shard: int = Field(20, ge=1, description="crystals of one shard")
    largest_cell: float = Field(8.6, gt=2, description="largest lattice parameter, Å; the paper has no limit")
    version: Literal["felix", "converged", "dark"] = Field(
        "felix",
        description="of the data set: as the paper, converged with B of 0.5 to 1 Å^2, "
        "or at one thickness with two dark-field disks",
    )
    energy: float = Field(200e3, gt=0, description="beam energy, eV")
    angular_range: float = Field(
        0.21, gt=0, le=1, description="half width of the field times a, rad Å; the code has 0.182"
    )
    thickness: float = Field(500.0, gt=0, description="of the patterns that a network is trained on, Å")
    reads: Literal["patterns", "crystals", "nothing"] = Field(
        "nothing", description="stored files that a study reads: the crystals, or their patterns as well"
    )
    # Networks (Sec. 3 and the authors' code).
    direction: Literal["forward", "inverse"] = Field("forward", description="potential to pattern, or back")
    method: Literal["gan", "regression", "circular", "conditioned", "assisted"] = Field(
        "gan",
        description="pix2pixHD, its generator without adversary, that with periodic convolutions and origins "
        "at random, told lattice parameter and thickness, or given the exact pattern of a few beams",
    )
    origin: Literal["given", "canonical"] = Field(
        "given", description="of the potentials: as the crystals have it, or where they are most symmetric"
    )
    disks: int = Field(
        1, ge=1, le=3, description="given to an inverse network of version dark: 000, then 200, then 220"
    )
    few_beams: int = Field(
        49, ge=1, le=1000, description="about so many beams of a pattern of few, as an assisted one is given"
    )
    split: Literal["random", "prototype"] = Field(
        "random", description="random folds or whole prototypes held out"
    )
    folds: int = Field(10, ge=2, description="folds of cross-validation")
    part: float = Field(1.0, gt=0, le=1, description="part of the training crystals that is used")
    pixels: int = Field(128, ge=16, le=128, description="pixels along each side of what the networks see")
    width: int = Field(64, ge=4, description="channels of the generator's first layer")
    downsamplings: int = Field(4, ge=1, le=5, description="strided convolutions of the generator")
    blocks: int = Field(9, ge=1, description="residual blocks of the generator")
    discriminator_width: int = Field(64, ge=4, description="channels of the discriminator's first layer")
    discriminator_layers: int = Field(3, ge=1, description="strided convolutions of the discriminator")
    feature_weight: float = Field(10.0, ge=0, description="weight of feature matching")
    epochs: int = Field(100, ge=1, description="passes over the training crystals")
    batch: int = Field(16, ge=1, description="crystals of one step")
    rate: float = Field(2e-4, gt=0, description="rate of Adam")

    def files(self) -> dict[str, Path]:
        """Return the files that a study reads: crystals and patterns, at gpu and paper scale their own."""
        found = super().files()
        needed = {"patterns": ("crystals", self.version), "crystals": ("crystals",), "nothing": ()}
        for name in needed[self.reads]:
            found[name] = specimen_of_scale("webb2025", name, self.scale)
        return found
