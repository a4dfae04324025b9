"""Readers: files of microscopes and of micromagnetics programs into records."""

from exitwave.readers.microscope import read_images
from exitwave.readers.ovf import read_ovf, write_ovf
from exitwave.readers.record import read_record

__all__ = ["read_images", "read_ovf", "read_record", "write_ovf"]
