"""Zhou et al. 2020: Lorentz phase retrieval by automatic differentiation."""
