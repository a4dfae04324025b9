"""``python -m exitwave.cli``."""

from exitwave.cli import main

main()
