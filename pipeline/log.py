"""Where log records go. Only the command line calls this; modules just log."""

from __future__ import annotations

import logging
import sys


class _Stderr(logging.Handler):
    """Looks up ``sys.stderr`` for each record, so that lines pass above a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(self.format(record) + "\n")


def configure(level: int = logging.WARNING) -> None:
    """Send the records of fxpipe's own packages to stderr.

    Args:
        level: The least grave level that is shown.
    """
    handler = _Stderr(level)
    handler.setFormatter(_Plain())
    for package in ("pipeline", "stages"):
        logger = logging.getLogger(package)
        logger.handlers[:] = [handler]
        logger.setLevel(level)
        logger.propagate = False
    # They log header values, and those may name the patient.
    for name in ("pydicom", "highdicom"):
        logging.getLogger(name).propagate = False
        logging.getLogger(name).handlers[:] = [logging.NullHandler()]
    # Lightning says at every start which precision it was told.
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)


class _Plain(logging.Formatter):
    """``warning: …``, in the manner of compilers; what is no warning has no word in front."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if record.levelno <= logging.INFO else f"{record.levelname.lower()}: {text}"
