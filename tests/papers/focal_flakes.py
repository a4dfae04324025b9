"""Small data sets of the focal-series chapter, for its tests."""

from exitwave import records
from exitwave.chapters.points import Point
from exitwave.chapters.reproduce import _collect
from exitwave.papers.larsen2022 import data
from exitwave.papers.larsen2022.parameters import Parameters

KINDS = ("mos2", "supported", "materials")
SMALL = {"box": 12.8, "smallest": 3.5, "largest": 5.0}


def at(**changed):
    """Return parameters of smoke scale for them."""
    return Parameters.at("smoke", **(SMALL | changed))


def store(folder):
    """Store them as `reproduce` does in a folder of results."""
    for kind in KINDS:
        point = Point("larsen2022", "specimens", at(data=kind, reads="nothing"))
        made = records.with_provenance(data.specimens(point.parameters), {"seconds": 1.0, "device": "cpu"})
        place = folder / "larsen2022" / "specimens" / f"{kind}.nc"
        records.save(_collect("larsen2022", "smoke", kind, [point], [made]), place)
