"""Every error that fxpipe raises on purpose. Each says what was found, what was wanted, what to do.

::

    FxpipeError
    ├── UsageError            exit 2: the command or its configuration is wrong
    │   ├── ConfigError
    │   └── InputMissingError
    ├── StartError            exit 3: the run could not start
    │   ├── BundleError
    │   ├── DeviceError
    │   └── MissingExtraError
    ├── BusyError             exit 3: a service has as many files in flight as it may have
    ├── OutputError           exit 3: a result cannot be written; the run can go on later
    ├── ImageError            one input got no verdict; the others go on
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
        message: What was found and what was wanted, naming the object.
        hint: What to do next; empty when the message says it already.
    """

    exit_code = 3

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(FxpipeError):
    """The command line asks for something impossible."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration has faults; all of them are listed at once."""


class InputMissingError(UsageError):
    """The input path does not exist or holds no file."""


class StartError(FxpipeError):
    """Everything was asked for correctly, but the run cannot start."""

    exit_code = 3


class BundleError(StartError):
    """A weights bundle is missing, altered or does not fit its trunk."""


class DeviceError(StartError):
    """The device that was asked for is not the device that would be used."""


class MissingExtraError(StartError):
    """A command needs an optional part of fxpipe that is not installed."""


class OutputError(FxpipeError):
    """A result cannot be written: the disk is full, the folder gone. What is there stays."""

    exit_code = 3


class BusyError(FxpipeError):
    """As many files are in flight as there may be; a later try may be accepted."""

    exit_code = 3


class ImageError(FxpipeError):
    """One input could not be turned into an X-ray image."""

    exit_code = 1


class UnreadableImageError(ImageError):
    """A file that claims to be a picture and cannot be decoded."""


class UnsupportedError(ImageError):
    """A file that can be read as far as is needed to know that fxpipe does not judge it."""


class NotAPictureError(UnsupportedError):
    """A file that neither is a picture nor claims to be one by its name."""


class NotARadiographError(UnsupportedError):
    """A readable object that is no projection radiograph (a CT slice or a report, for one)."""


class OwnOutputError(UnsupportedError):
    """A file that fxpipe made itself."""


MOST_FAULTS = 10
"""That a message lists before it only counts."""


def shortened(faults: Sequence[str]) -> list[str]:
    """The first few faults, and how many more there are."""
    more = len(faults) - MOST_FAULTS
    return [*faults[:MOST_FAULTS], *([f"and {more} more"] if more > 0 else [])]


class IndexFaultsError(FxpipeError):
    """The table of samples has faults; the first of them are listed at once.

    Attributes:
        faults: All of them.
    """

    exit_code = 1

    def __init__(self, source: str, faults: Sequence[str]) -> None:
        super().__init__(
            f"{source}: {len(faults)} fault(s)\n"
            + "\n".join(f"  - {fault}" for fault in shortened(faults))
        )
        self.faults = tuple(faults)


class ExportRefusedError(FxpipeError):
    """The exported graph does not make the decisions of the trained network."""

    exit_code = 1
