"""A worker that reports that it is ready, and then never reads a request."""

from __future__ import annotations

import os
import time

from pipeline import __file__ as package
from pipeline.reading import messages


def main() -> int:
    """Report ready and wait."""
    messages.send(os.fdopen(1, "wb"), {"kind": "ready", "package": package})
    time.sleep(1000)
    return 0
