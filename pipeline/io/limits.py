"""Limits on one input: memory is limited and files may be hostile."""

from __future__ import annotations

MAX_FILE_BYTES = 2**30
"""Largest file; files are read whole. Any radiograph is smaller, a video may not be."""

MAX_INFLATED_BYTES = 2**28
"""Largest deflated DICOM file after inflation, which may be a thousandfold. The largest picture has
160 MB."""

MAX_PICTURES = 1000
"""Most pictures in one file. Each becomes a row, and 100 kB can declare 100,000 tiny pictures."""

MAX_PIXELS = 80_000_000
"""Largest picture, checked in the header before decoding. A long-leg film scan has about 60
megapixels; the process-wide limit of Pillow starts at 89 and is never reached."""
