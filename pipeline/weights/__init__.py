"""A weights folder on disk: its manifest, its proof, and how it travels."""
