"""``python -m pipeline.cli`` is ``fxpipe``."""

from . import main

main()
