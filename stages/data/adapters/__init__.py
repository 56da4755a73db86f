"""Adapters, one module per data layout: one function detects the layout, one reads its rows."""
