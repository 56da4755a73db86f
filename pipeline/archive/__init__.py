"""Runs over archives of millions of files: a plan, chunks that are judged anywhere, a merge."""
