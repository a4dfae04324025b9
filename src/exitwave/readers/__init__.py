"""Readers: files of microscopes and of micromagnetics programs into records."""

from exitwave.readers.microscope import read_images
from exitwave.readers.ovf import read_ovf, write_ovf

__all__ = ["read_images", "read_ovf", "write_ovf"]
