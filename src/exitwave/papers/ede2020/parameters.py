"""Every number of Ede et al. 2020, per scale.

What the paper leaves out is taken from the authors' public code, or chosen here, and marked so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from exitwave.errors import InputError
from exitwave.networks.oneshot import Order
from exitwave.networks.oneshot_tasks import Schedule
from exitwave.papers.parameters import PaperParameters, Scale

Scope = Literal["multi", "restricted", "single"]


@dataclass(frozen=True)
class Ranges:
    """Of depth and width (Å), zone indices from 0, and the standard deviation of the three angles (rad)."""

    depth: tuple[float, float]
    width: tuple[float, float]
    index: int
    tilt: float


# Sec. 2: bounds "reduced by factors close to 1/4"; the numbers are those of the code.
RESTRICTED = Ranges((50.0, 237.5), (50.0, 62.5), 1, math.radians(0.025))


class Parameters(PaperParameters):
    """Parameters of the one-shot study; lengths in Å, energies in eV, angles in rad.

    The seed is that of the network: its first weights, its order of samples and its crops.
    """

    presets: ClassVar[Mapping[Scale, Mapping[str, Any]]] = {
        "smoke": {
            "crystals": 24, "waves": 24, "unseen": 8, "field": 32, "pixels": 24, "width": 4,
            "judge_width": 4, "downsamplings": 2, "blocks": 1, "steps": 6, "batch": 4,
            "examples": 16, "longest_axis": 7.0,
        },
        "workshop": {
            "crystals": 240, "waves": 1600, "unseen": 200, "field": 128, "pixels": 64, "width": 8,
            "judge_width": 12, "blocks": 3, "steps": 2000, "batch": 12, "examples": 400,
        },
        "gpu": {"crystals": 1200, "waves": 8000, "unseen": 800, "steps": 50_000},
    }  # fmt: skip

    # Waves (Sec. 2 and Table 1).
    scope: Scope = Field("multi", description="many materials, restricted parameters, or one material")
    n_terms: int = Field(3, ge=1, le=3, description="Lorentzians and Gaussians of the potentials, Eq. 20")
    crystals: int = Field(8639, ge=4, description="crystals of all materials; the paper's training set")
    waves: int = Field(24530, ge=4, description="waves to learn from")
    unseen: int = Field(1544, ge=2, description="waves of each unseen set")
    cifs: str = Field(
        "",
        description="folder of CIFs, and of folders of them, in place of the tables of crystals",
        json_schema_extra={"cifs": True},
    )
    longest_axis: float = Field(18.0, gt=2, description="of a crystal's cell, Å; the paper has no limit")
    least_depth: float = Field(50.0, gt=0, description="least thickness, Å")
    greatest_depth: float = Field(1000.0, gt=0, description="greatest thickness, Å")
    least_width: float = Field(50.0, gt=0, description="least width of a crystal, Å")
    greatest_width: float = Field(100.0, gt=0, description="greatest width of a crystal, Å")
    greatest_index: int = Field(2, ge=1, le=3, description="of a zone axis")
    tilt: float = Field(
        0.0017453292519943296, ge=0, description="standard deviation of each angle, rad: 0.1°"
    )
    margin: float = Field(8.0, ge=0, description="vacuum at each side of the crystal, Å")
    beyond: float = Field(3.0, ge=0, description="vacuum behind the crystal, Å")
    grid: int = Field(512, ge=64, description="pixels over width and vacuum: they make the pixel size")
    slice_thickness: float = Field(1.0, gt=0, description="of a slice, Å; from the code")
    field: int = Field(320, ge=16, description="pixels along each side that are kept of a wave")
    iterations: int = Field(20, ge=1, description="of the focal-series reconstruction; from the code")
    # Networks (Sec. 3 and the authors' code).
    method: Literal["mse", "gan"] = Field("mse", description="direct prediction, or adversarial")
    order: Order = Field("norm first", description="of layers; the code has the ramp before the norm")
    schedule: Schedule = Field(
        "steps", description="of the learning rate: halved in steps, or, by a slip of the code, constant"
    )
    decay: float = Field(0.0, ge=0, description="of weights; the code has 5e-5, the paper nothing")
    first_moment: float = Field(25.0, gt=0, description="of losses at first, for clipping")
    second_moment: float = Field(
        900.0, gt=0, description="of losses at first; the paper's 30 makes their spread imaginary"
    )
    pixels: int = Field(
        224, ge=16, description="along each side of crops; the GAN learns from smaller ones, 144 in the paper"
    )
    judge_width: int = Field(50, ge=2, description="channels of the discriminator's first layer")
    width: int = Field(32, ge=2, description="channels at full size")
    downsamplings: int = Field(4, ge=1, le=5, description="strided convolutions")
    blocks: int = Field(6, ge=1, description="residual blocks")
    steps: int = Field(500_000, ge=1, description="updates of the network")
    batch: int = Field(24, ge=2, description="crops of one step")
    clipping: bool = Field(True, description="adaptive learning rate clipping")
    balance: float = Field(20.0, gt=0, description="m of Eq. 24; 15 for n = 1 in the code")
    # Better networks, which are not in the paper.
    better: Literal["all", "untold", "gauge"] = Field(
        "all",
        description="what is better: all, all but what it is told, or the gauge of what the paper's learns",
        json_schema_extra={"later": True},
    )
    shown: Literal["modulus", "image"] = Field(
        "modulus",
        description="what a better network is shown: the wave's modulus, or that of a noisy image",
        json_schema_extra={"later": True},
    )
    unet_depth: int = Field(
        3, ge=1, le=5, description="downsamplings of the better network", json_schema_extra={"later": True}
    )
    greatest_defocus: float = Field(
        100.0, ge=0, description="of images, either way, Å", json_schema_extra={"later": True}
    )
    least_dose: float = Field(
        1e3, gt=0, description="of images, electrons per Å^2", json_schema_extra={"later": True}
    )
    greatest_dose: float = Field(
        1e5, gt=0, description="of images, electrons per Å^2", json_schema_extra={"later": True}
    )
    network: str = Field(
        "",
        description="run whose released network gives the phases to start from, for multislice after it",
        json_schema_extra={"network_of": "ede2020"},
    )
    examples: int = Field(19992, ge=4, description="crops that each unseen set is judged by")
    idea: Literal["sharded", "consistent", "supervised"] = Field(
        "sharded",
        description="Appendix A: as it is, with each wave's own image asked for, or with true waves",
        json_schema_extra={"later": True},
    )

    @property
    def crop(self) -> int:
        """Pixels along each side of the crops to learn from; the GAN's are 9/14 of it, multiples of 8."""
        return self.pixels if self.method == "mse" else 8 * round(self.pixels * 144 / 224 / 8)

    def files(self) -> dict[str, Path]:
        """Return the CIFs of the folder, if one is named.

        Raises
        ------
        InputError
            If it is no folder, or holds none.
        """
        found = super().files()
        if self.cifs:
            paths = sorted(Path(self.cifs).glob("*.cif"))
            if not paths:
                raise InputError(f"cifs={self.cifs!r}: no folder with .cif files: name one")
            found |= {path.name: path for path in paths}
        return found

    @property
    def ranges(self) -> Ranges:
        """What waves of the scope are drawn from."""
        if self.scope == "restricted":
            return RESTRICTED
        return Ranges(
            (self.least_depth, self.greatest_depth), (self.least_width, self.greatest_width),
            self.greatest_index, self.tilt,
        )  # fmt: skip
