"""Fixtures of the papers' tests."""

import pytest

from exitwave import records
from exitwave.chapters.points import Point
from exitwave.chapters.reproduce import _collect
from exitwave.papers.webb2025 import converged, patterns, variation
from exitwave.papers.webb2025.parameters import Parameters
from exitwave.specimens.crystals import to_table
from exitwave.specimens.prototypes import known_crystals


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data set of 20 small crystals in a folder of its own, with shards as `reproduce` stores them."""
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXITWAVE_DATA", str(folder))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setattr(patterns, "PIXELS", 32)
        patch.setattr(variation, "_BEAMS", 49)
        for name, value in (("PIXELS", 32), ("_VECTORS", 4), ("_LIMIT", 1.0)):
            patch.setattr(converged, name, value)
        crystals = [c for c in known_crystals() if len(c.numbers) <= 8 and c.prototype != "simple cubic"]
        small = sorted(crystals, key=lambda c: c.lattice_parameter)
        chosen = [*small[:19], next(c for c in small[19:] if c.setting == "2")]
        place = folder / "webb2025" / "specimens"
        for name, study, seeds in (
            ("crystals", None, 1),
            ("felix", patterns.patterns, 2),
            ("dark", variation.dark_field, 2),
            ("converged", converged.converged_patterns, 2),
        ):
            version = {} if study is None else {"version": name, "reads": "crystals"}
            settings_ = {"crystals": 20, "shard": 10, "pixels": 32} | version
            points = [
                Point(
                    "webb2025",
                    study.__name__ if study else "crystals",
                    Parameters.at("smoke", **settings_, seed=seed),
                )
                for seed in range(seeds)
            ]
            results = []
            for point in points:
                made = to_table(chosen) if study is None else study(point.parameters)
                results.append(records.with_provenance(made, {"seconds": 1.0, "device": "cpu"}))
            records.save(_collect("webb2025", "smoke", name, points, results), place / f"{name}.nc")
        yield Parameters.at("smoke", crystals=20, shard=10, pixels=32, folds=4, batch=5, reads="patterns")
