"""The DICOM parts of a running service: node, stable studies, sender."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from .application import Service
from .dicom_node import listening
from .dicom_options import DicomOptions
from .sender import Sender
from .studies import Studies


@contextmanager
def running(
    service: Service, options: DicomOptions, receives: bool = True, sends: bool = True
) -> Iterator[int | None]:
    """Send results, and receive pictures if a port is given, during the block.

    Args:
        service: An open service.
        options: DICOM settings.
        receives: Whether this process runs the DICOM node.
        sends: Whether this process sends results.

    Yields:
        The port of the node; None without one.

    Raises:
        StartError: The address is in use, or a TLS file cannot be used.
    """
    service.dicom = options
    with ExitStack() as stack:
        if sends:
            sender = Sender(service, options)
            stack.callback(sender.stop)
            studies = Studies(service, sender.wake)
            stack.callback(studies.stop)
        port = None
        if receives and options.port is not None:
            temporary = service.folder / "tmp"
            port = stack.enter_context(listening(service, options, temporary))
        yield port
