"""What nbval compares when it runs a chapter again: text and Markdown, but no drawings.

Loaded by ``pytest -p nbval_plugin --nbval`` (see test_nbval.py). Figures are pages of JSON in which every
element has a new random name each time.
"""

from nbval.plugin import IPyNbCell

DRAWINGS = (
    "text/html",
    "application/javascript",
    "application/vnd.bokehjs_exec.v0+json",
    "application/vnd.bokehjs_load.v0+json",
    "application/vnd.holoviews_exec.v0+json",
    "application/vnd.holoviews_load.v0+json",
)
# What differs from one machine, or one minute, to the next.
SANITISED = {
    r"\b0x[0-9a-fA-F]+\b": "ADDRESS",
    r"\b\d+(\.\d+)? ?(ms|s|min)\b": "TIME",
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d\S*": "DATE",
    r"(/[\w.+-]+){2,}/?": "PATH",
}


def pytest_itemcollected(item):
    if isinstance(item, IPyNbCell):
        file = item.parent
        file.skip_compare = tuple(dict.fromkeys((*file.skip_compare, *DRAWINGS)))
        file.sanitize_patterns.update(SANITISED)
