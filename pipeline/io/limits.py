"""What one input may cost; the memory of a clinic's computer is finite and files may be hostile."""

from __future__ import annotations

MAX_FILE_BYTES = 2**30
"""A file is read whole. 1 GiB holds any radiograph; a video in the folder must not end a run."""

MAX_INFLATED_BYTES = 2**28
"""A deflated DICOM file may grow a thousandfold when opened. The largest picture has 160 MB."""

MAX_PICTURES = 1000
"""In one file: each becomes a row, and 100 kB can promise a hundred thousand of a pixel."""

MAX_PIXELS = 80_000_000
"""Of one picture, read from its header before decoding. A long-leg film scan has about 60
megapixels; Pillow's own guard, which is process-wide, starts at 89 and so is never reached."""
