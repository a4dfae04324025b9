"""Differentiable forward models, one module for each modality."""
