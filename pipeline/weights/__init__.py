"""Weights folders: manifest, verification, packing and installation."""
