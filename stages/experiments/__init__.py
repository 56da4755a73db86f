"""Cross-validation, and comparison of systems and recipes."""
