"""Script that decodes one compressed DICOM frame with GDCM in a separate process.

GDCM may crash on a damaged stream (uncaught C++ exceptions, segmentation faults), and one bad file
must not end a run. :mod:`pipeline.io.decoders` runs this file by path, without any import of
fxpipe. It reads the stream from stdin and writes the pixels to stdout, both as raw bytes. Exit code
0 means that all pixels were written.
"""

from __future__ import annotations

import signal
import sys


def main(arguments: list[str]) -> int:
    """Decode stdin to stdout.

    Args:
        arguments: Transfer syntax UID, photometric interpretation, then as decimal numbers rows,
            columns, samples per pixel, bits allocated, bits stored and pixel representation of the
            code stream, which may differ from the header.
    """
    import gdcm

    # The parent process waits for 60 s, and may exit before that.
    if hasattr(signal, "alarm"):
        signal.alarm(90)
    syntax, photometric = arguments[:2]
    rows, columns, samples, allocated, stored, signed = (int(number) for number in arguments[2:])
    stream = sys.stdin.buffer.read()

    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(stream)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((columns, rows, 1))
    image.SetDataElement(element)
    kind = gdcm.PhotometricInterpretation.GetPIType(photometric)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
    if samples > 1:
        image.SetPlanarConfiguration(0)
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(syntax)))
    image.SetPixelFormat(gdcm.PixelFormat(samples, allocated, stored, stored - 1, signed))
    text = image.GetBuffer()
    if text is None:
        return 1
    # GDCM returns bytes as str.
    sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
