"""The outputs of a run: one record for each outcome, and one writer for each output."""

from .writer import ReportWriter, Writer

__all__ = ["ReportWriter", "Writer"]
