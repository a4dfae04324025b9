"""Ede et al. 2020: exit waves from single images."""
