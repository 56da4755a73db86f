"""All errors that fxpipe raises on purpose, with what was found, what was expected and a hint.

::

    FxpipeError
    ├── UsageError            exit 2: the command or its configuration is wrong
    │   ├── ConfigError
    │   └── InputMissingError
    ├── StartError            exit 3: the run could not start
    │   ├── BundleError
    │   ├── DeviceError
    │   └── MissingExtraError
    ├── BusyError             exit 3: a service has reached its limit of files in flight
    ├── OutputError           exit 3: a result cannot be written; the run can be resumed
    ├── ImageError            one input got no verdict; the run continues
    │   ├── UnreadableImageError  exit 1: reported as failed
    │   └── UnsupportedError      exit 0: reported as unsupported
    │       ├── NotAPictureError
    │       ├── NotARadiographError
    │       └── OwnOutputError
    ├── IndexFaultsError      exit 1: the data table has faults
    └── ExportRefusedError    exit 1: an exported model differs from the trained one
"""

from __future__ import annotations

from collections.abc import Sequence


class FxpipeError(Exception):
    """Base of all deliberate errors.

    Args:
        message: What was found and what was expected, with the name of the file or object.
        hint: What to do next; empty if the message is sufficient.
    """

    exit_code = 3

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(FxpipeError):
    """The command line is invalid."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration has faults; the message lists all of them."""


class InputMissingError(UsageError):
    """The input path does not exist or contains no file."""


class StartError(FxpipeError):
    """The command is valid, but the run cannot start."""

    exit_code = 3


class BundleError(StartError):
    """A weights bundle is missing, altered or does not fit its trunk."""


class DeviceError(StartError):
    """The requested device cannot be used."""


class MissingExtraError(StartError):
    """A command needs an optional part of fxpipe that is not installed."""


class OutputError(FxpipeError):
    """A result cannot be written (disk full, folder missing). Existing results are kept."""

    exit_code = 3


class BusyError(FxpipeError):
    """The limit of files in flight is reached; a later attempt may succeed."""

    exit_code = 3


class ImageError(FxpipeError):
    """One input could not be turned into an X-ray image."""

    exit_code = 1


class UnreadableImageError(ImageError):
    """A file that should be a picture but cannot be decoded."""


class UnsupportedError(ImageError):
    """A readable file of a kind that fxpipe does not judge."""


class NotAPictureError(UnsupportedError):
    """A file that is not a picture, by content and by name."""


class NotARadiographError(UnsupportedError):
    """A readable object that is not a projection radiograph, for example a CT slice."""


class OwnOutputError(UnsupportedError):
    """A file created by fxpipe."""


MOST_FAULTS = 10
"""Largest number of faults that a message lists."""


def shortened(faults: Sequence[str]) -> list[str]:
    """The first faults, and the number of others."""
    more = len(faults) - MOST_FAULTS
    return [*faults[:MOST_FAULTS], *([f"and {more} more"] if more > 0 else [])]


class IndexFaultsError(FxpipeError):
    """The table of samples has faults; the message lists the first of them.

    Attributes:
        faults: All faults.
    """

    exit_code = 1

    def __init__(self, source: str, faults: Sequence[str]) -> None:
        super().__init__(
            f"{source}: {len(faults)} fault(s)\n"
            + "\n".join(f"  - {fault}" for fault in shortened(faults))
        )
        self.faults = tuple(faults)


class ExportRefusedError(FxpipeError):
    """The exported graph decides differently from the trained network."""

    exit_code = 1
