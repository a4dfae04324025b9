"""Webb et al. 2025: LACBED patterns by generative networks."""
