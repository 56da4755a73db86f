"""fxpipe's consuming half: from files to verdicts with exported bundles, and never torch."""

DISTRIBUTION = "fxpipe"
