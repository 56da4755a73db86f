"""A worker that is ready, and then hears nothing."""

from __future__ import annotations

import os
import time

from pipeline import __file__ as package
from pipeline.reading import messages


def main() -> int:
    """Never read a request."""
    messages.send(os.fdopen(1, "wb"), {"kind": "ready", "package": package})
    time.sleep(1000)
    return 0
