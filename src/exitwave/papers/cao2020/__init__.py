"""Cao et al. 2020: 4D-STEM phase retrieval by learned models."""
