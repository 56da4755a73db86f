"""Configuration of logging, called by the command line only."""

from __future__ import annotations

import logging
import sys


class _Stderr(logging.Handler):
    """Uses the current ``sys.stderr``, so that lines appear above a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(self.format(record) + "\n")


def configure(level: int = logging.WARNING) -> None:
    """Send the log records of the packages of fxpipe to stderr.

    Args:
        level: Lowest level that is shown.
    """
    handler = _Stderr(level)
    handler.setFormatter(_Plain())
    for package in ("pipeline", "stages"):
        logger = logging.getLogger(package)
        logger.handlers[:] = [handler]
        logger.setLevel(level)
        logger.propagate = False
    # They log header values, which may identify the patient.
    for name in ("pydicom", "highdicom"):
        logging.getLogger(name).propagate = False
        logging.getLogger(name).handlers[:] = [logging.NullHandler()]
    # Lightning logs its precision at every start.
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)


class _Plain(logging.Formatter):
    """``warning: …`` as in compilers; records of level info and below have no prefix."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if record.levelno <= logging.INFO else f"{record.levelname.lower()}: {text}"
