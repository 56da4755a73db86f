"""Evaluation of exported bundles on a table, per stage and end to end."""
