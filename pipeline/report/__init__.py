"""What a run leaves behind: one record for each outcome, and one writer a file."""

from .record import ReportWriter

__all__ = ["ReportWriter"]
