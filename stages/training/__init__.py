"""Training runs: initial weights, loop, assessment, and loading of finished runs."""
