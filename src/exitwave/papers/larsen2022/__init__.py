"""Leth Larsen et al. 2022: exit waves from focal series."""
