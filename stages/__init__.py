"""fxpipe's producing half: from labelled radiographs to exported bundles."""

DISTRIBUTION = "fxpipe"
