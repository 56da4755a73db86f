"""The bundles as shipped, measured on a table: stage by stage, and end to end."""
