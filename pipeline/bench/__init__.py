"""Benchmark of fxpipe against other implementations on the user's machine."""
