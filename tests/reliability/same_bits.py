"""Compute a study of each chapter at smoke scale, in one thread; print checksums of its numbers as JSON."""

import json
import sys
import time
import zlib

import numpy as np
import torch

from exitwave.chapters.points import compute
from exitwave.chapters.project import parameters_of
from exitwave.papers.verdicts import load_claims

# Paper, run of its claims, and what makes it smaller.
RUNS = {
    "zhou2020": ("moderate-noise", {"iterations": 4}),
    "larsen2022": ("mos2", {"epochs": 1, "flakes": 6}),
    "ede2020": ("multi-n3", {"crystals": 8, "waves": 4, "unseen": 2, "steps": 1, "batch": 2}),
    "cao2020": ("transfer", {"epochs": 1, "iterations": 1}),
    "webb2025": ("forward-500", {"epochs": 1}),
}
# Of two times, and so of the machine as they are.
RATIOS = ("speed",)


def main():
    """Leave out times, which are of the machine."""
    torch.set_num_threads(1)
    found = {}
    for paper in sys.argv[1:] or RUNS:
        name, smaller = RUNS[paper]
        run = load_claims(paper).runs[name]
        began = time.process_time()
        parameters = parameters_of(paper).at("smoke", **(run.settings | smaller), seed=1)
        result = compute(paper, run.study, parameters.model_dump(), "cpu", 1)
        found[paper] = {
            str(name): zlib.crc32(np.ascontiguousarray(variable.values).tobytes())
            for name, variable in result.variables.items()
            if name not in RATIOS and variable.attrs.get("units") != "s" and variable.dtype.kind in "biuf"
        }
        print(paper, run.study, f"{time.process_time() - began:.1f} s", file=sys.stderr)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
