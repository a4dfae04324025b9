"""exitwave: electron phases from images, five papers live and checked.

Conventions, everywhere inside: lengths in Å, energies in eV, angles in rad, potentials in V;
index order ``(y, x)``; waves ``exp(+2 pi i k z)``, transfer functions ``exp(-i chi)``, positive
defocus is underfocus (``C10 = -defocus``).
"""

__version__ = "0.1.0"
