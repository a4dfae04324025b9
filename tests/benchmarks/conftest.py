"""Which benchmarks run, and what became of each: for ``exitwave bars``, which sets the two variables.

pytest-benchmark keeps the time of a test that fails after it was timed, and says nothing of one that was
skipped.
"""

import importlib.metadata
import json
import os
import platform
from pathlib import Path

import pytest

PROGRAMS = ("torch", "numpy", "abtem", "quantem", "ptyrad")
OUTCOMES = pytest.StashKey[dict]()


def pytest_configure(config):
    config.stash[OUTCOMES] = {}


def pytest_collection_modifyitems(config, items):
    if "EXITWAVE_BENCHMARKS" not in os.environ:
        return
    wanted = set(json.loads(os.environ["EXITWAVE_BENCHMARKS"]))
    left_out = [each for each in items if not wanted & {name_of(each), name_of(each).split("::")[0]}]
    items[:] = [each for each in items if each not in left_out]
    config.hook.pytest_deselected(items=left_out)


def name_of(item):
    return item.nodeid.removeprefix("tests/benchmarks/")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    report = (yield).get_result()
    outcomes = item.config.stash[OUTCOMES]
    if report.skipped:
        outcomes[name_of(item)] = ["skipped", report.longrepr[2].removeprefix("Skipped: ")]
    elif report.failed:
        crash = getattr(report.longrepr, "reprcrash", None)
        said = crash.message if crash is not None else str(report.longrepr)
        outcomes[name_of(item)] = ["failed", (said.splitlines() or [report.when])[0]]
    elif report.when == "call":
        outcomes[name_of(item)] = ["passed", ""]


def pytest_sessionfinish(session):
    if "EXITWAVE_OUTCOMES" not in os.environ:
        return
    versions = {"python": platform.python_version()}
    for program in PROGRAMS:
        try:
            versions[program] = importlib.metadata.version(program)
        except importlib.metadata.PackageNotFoundError:
            continue
    found = {"outcomes": session.config.stash[OUTCOMES], "versions": versions}
    Path(os.environ["EXITWAVE_OUTCOMES"]).write_text(json.dumps(found), encoding="utf-8")
