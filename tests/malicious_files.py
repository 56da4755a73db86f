"""Malicious and extreme files, each with the error that a run must report."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any

import factories
import numpy as np
from PIL import Image
from pydicom.dataset import FileDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RLELossless,
)

DEPTH = 100_000
_GREY = factories.ramp(60, 50, 0, 255, np.uint8)
_DEEP = factories.ramp(60, 50, 0, 65535)
PICTURE = None
"""Instead of an error: the file is a valid picture."""

Case = tuple[str, bytes, str | None]


def cases() -> Iterator[Case]:
    """Yield file name, content, and a part of the error message; None for a valid picture."""
    yield from _rasters()
    yield from _bombs()
    yield from _wide()
    yield from _headers()
    yield from _encapsulated()
    yield from _nested()


def png(width: int, height: int, body: bytes, depth: int = 8, colour: int = 0) -> bytes:
    """A PNG whose header can state any size."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


def chunk(name: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def zeros(count: int) -> bytes:
    """A deflated stream of ``count`` zero bytes, a thousandth of their size."""
    deflate, block = zlib.compressobj(9), bytes(2**20)
    parts = [deflate.compress(block) for _ in range(count // len(block))]
    return b"".join([*parts, deflate.compress(bytes(count % len(block))), deflate.flush()])


def _rasters() -> Iterator[Case]:
    colour = np.stack([_GREY, _GREY[::-1], _GREY], -1)
    pages = [Image.fromarray(_GREY), Image.fromarray(255 - _GREY)]
    animated = {"save_all": True, "append_images": pages[1:]}
    palette = Image.fromarray(_GREY).convert("P")
    exif = Image.Exif()
    exif[0x0112] = 8
    yield "cmyk.jpg", factories.raster(Image.fromarray(colour).convert("CMYK"), "JPEG"), PICTURE
    yield "palette.png", factories.raster(palette, "PNG", transparency=bytes(range(256))), PICTURE
    yield "alpha.webp", factories.raster(np.dstack([colour, _GREY]), "WEBP"), PICTURE
    yield "turned.jpg", factories.raster(_GREY, "JPEG", exif=exif.tobytes()), PICTURE
    yield "animated.png", factories.raster(pages[0], "PNG", **animated), PICTURE
    yield "animated.webp", factories.raster(pages[0], "WEBP", **animated), PICTURE
    yield "animated.gif", factories.raster(pages[0], "GIF", **animated), "found a GIF picture"
    for name, value in (("nan", np.nan), ("inf", np.inf), ("minus-inf", -np.inf)):
        floats = _DEEP.astype(np.float32)
        floats[3, 4] = value
        yield f"{name}.tif", factories.tiff(floats), "1 pixels that are NaN or infinite"
    for file_format in ("PNG", "JPEG", "TIFF", "WEBP", "BMP"):
        one = factories.raster(_GREY[:1, :1], file_format)
        yield f"one.{file_format.lower()}", one, PICTURE
    yield "none.png", png(0, 0, chunk(b"IDAT", zlib.compress(b""))), "cannot decode"
    yield "none.bmp", _sized_bmp(0, 0), "cannot decode"
    jpeg = bytearray(factories.raster(_GREY, "JPEG"))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = bytes(4)
    yield "none.jpg", bytes(jpeg), "cannot decode"
    yield "none.dcm", _header(Rows=0), "expected 1 to"


def _bombs() -> Iterator[Case]:
    yield "bomb.png", png(60_000, 60_000, chunk(b"IDAT", zeros(2**26))), "60000 x 60000 px"
    # The largest allowed number of pixels, from 80 kB.
    allowed = png(8_000, 9_900, chunk(b"IDAT", zeros(8_001 * 9_900)))
    yield "allowed.png", allowed, PICTURE
    # Allowed size, but far more data than the header states.
    endless = png(100, 100, chunk(b"IDAT", zeros(2**26)))
    yield "endless.png", endless, PICTURE
    text = chunk(b"zTXt", b"Comment\0\0" + zeros(2**26))
    idat = chunk(b"IDAT", zlib.compress(bytes(101 * 100)))
    yield "text.png", png(100, 100, text + idat), "cannot decode"
    profile = chunk(b"iCCP", b"icc\0\0" + zeros(2**26))
    yield "profile.png", png(100, 100, profile + idat), "cannot decode"
    yield "bomb.tif", _tiff_bomb(), "60000 x 60000 px"
    pages = [Image.new("L", (1, 1))] * 1001
    many = factories.raster(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    yield "pages.tif", many, "found more than 1000 pages"
    yield "bomb.dcm", _deflated(zeros(2**28 + 2**20)), "grows beyond"


def _wide() -> Iterator[Case]:
    """Sides of 65,535 px: both are too many pixels, one is allowed."""
    wide = np.tile(np.arange(256, dtype=np.uint8), 256)[None, :65_535]
    words = "65535 x 65535 px"
    for name, content in (
        ("png", png(65_535, 65_535, chunk(b"IDAT", zeros(1000)))),
        ("jpg", _sized_jpeg(65_535, 65_535)),
        ("bmp", _sized_bmp(65_535, 65_535)),
        ("tif", _sized_tiff(65_535, 65_535)),
        ("dcm", _header(Rows=65_535, Columns=65_535)),
    ):
        yield f"wide-both.{name}", content, words
    yield "wide-both.webp", _sized_webp(16_384, 16_384), "expected "
    # Pillow encodes at most 65,500 px as JPEG and 16,383 px as WebP.
    yield "wide.png", factories.raster(wide, "PNG"), PICTURE
    yield "wide.jpg", factories.raster(wide[:, :65_500], "JPEG"), PICTURE
    yield "wide.bmp", factories.raster(wide, "BMP"), PICTURE
    yield "wide.tif", factories.raster(wide, "TIFF"), PICTURE
    yield "wide.webp", factories.raster(wide[:, :16_383], "WEBP"), PICTURE
    yield "wide.dcm", factories.dicom_file(factories.dicom(wide)), PICTURE
    yield "tall.dcm", factories.dicom_file(factories.dicom(wide.T)), PICTURE


def _headers() -> Iterator[Case]:
    content = factories.dicom_file(factories.dicom(_DEEP))
    at = content.index(b"\xe0\x7f\x10\0OW") + 8
    long = content[:at] + struct.pack("<I", 2**31) + content[at + 4 :]
    yield "long.dcm", long, PICTURE
    short = content[:at] + struct.pack("<I", 17) + content[at + 4 :]
    yield "short.dcm", short, "expected "
    modality = content.index(b"\x08\0\x60\0CS") + 6
    yield "odd.dcm", content[:modality] + b"\xff\xff" + content[modality + 2 :], "expected "
    yield "no-pixels.dcm", factories.dicom_file(factories.dicom(None, Rows=9)), "without its pixel"
    yield "no-rows.dcm", _header(Rows=None), "pixel data without Rows"
    yield "no-syntax.dcm", content[:132] + content[content.index(b"\x08\0\x16\0") :], PICTURE
    yield "frames.dcm", _header(NumberOfFrames=2_000_000_000), "expected at most"
    yield "more-frames.dcm", _header(NumberOfFrames=900), "is truncated"
    for number, window in enumerate((("1e300", "1e308"), ("-1e300", "1"), ("nan", "0"))):
        bad = factories.dicom(_DEEP)
        bad.add_new("WindowCenter", "DS", "1")
        bad.add_new("WindowWidth", "DS", "1")
        file = factories.dicom_file(bad)
        for keyword, value in zip((b"\x50\x10DS", b"\x51\x10DS"), window, strict=True):
            at = file.index(keyword) + 4
            text = value.encode() + b" " * (len(value) % 2)
            file = file[:at] + struct.pack("<H", len(text)) + text + file[at + 4 :]
        yield f"window-{number}.dcm", file, PICTURE


def _encapsulated() -> Iterator[Case]:
    jpeg = factories.raster(_GREY, "JPEG")
    half = len(jpeg) // 2
    whole = encapsulate([jpeg])
    for name, syntax, data, words in (
        ("private", UID("1.2.840.113619.5.2"), whole, "is not supported"),
        ("unknown", UID("1.2.3.4.5"), whole, "transfer syntax that is not registered"),
        ("video", UID("1.2.840.10008.1.2.4.102"), whole, "is not supported"),
        ("empty", JPEGBaseline8Bit, _fragments(b""), "expected a JPEG Baseline"),
        ("nothing", JPEGBaseline8Bit, _fragments(), "expected a JPEG Baseline"),
        ("noise", RLELossless, encapsulate([b"\xff" * 64]), "cannot decode"),
        ("pieces", JPEGBaseline8Bit, _fragments(jpeg[:half], jpeg[half:]), PICTURE),
        ("endless", JPEGBaseline8Bit, whole[:-8] + b"\xfe\xff\x00\xe0\xff\xff\xff\xff", ": "),
    ):
        ds = factories.dicom(_GREY)
        ds.PixelData = data
        ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
        ds.file_meta.TransferSyntaxUID = syntax
        yield f"{name}.dcm", private_file(ds), words
    bomb = factories.dicom(_GREY)
    bomb.PixelData = encapsulate([factories.raster(np.zeros((8_000, 9_000), np.uint8), "JPEG")])
    bomb["PixelData"].VR, bomb["PixelData"].is_undefined_length = "OB", True
    bomb.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    yield "other-size.dcm", factories.dicom_file(bomb), "a code stream of 9000 x 8000 px"


def _nested() -> Iterator[Case]:
    """Nested sequences before the picture; at 60 bytes per level they need a few MB."""
    content = factories.dicom_file(factories.dicom(_DEEP))
    at = content.index(b"\x28\0\x02\0US")  # after group 0020, before group 0028
    level = b"\x20\0\x00\x90SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\0\xe0\xff\xff\xff\xff"
    end = b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0"
    deep = level * DEPTH + end * DEPTH
    yield "deep.dcm", content[:at] + deep + content[at:], "nested too deeply"
    yield "deep-open.dcm", content[:at] + level * DEPTH, "nested too deeply"
    implicit = factories.dicom_file(factories.dicom(_DEEP), ImplicitVRLittleEndian)
    at = implicit.index(b"\x28\0\x02\0\x02\0\0\0")
    level = level.replace(b"SQ\0\0", b"")
    deep = level * DEPTH + end * DEPTH
    yield "deep-implicit.dcm", implicit[:at] + deep + implicit[at:], "nested too deeply"


def _header(**attributes: Any) -> bytes:
    return factories.dicom_file(factories.dicom(_DEEP, **attributes))


def private_file(ds: FileDataset) -> bytes:
    """A file in explicit VR little endian, regardless of the transfer syntax in its header."""
    syntax = ds.file_meta.TransferSyntaxUID
    ds.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.4.50")
    return with_syntax(factories.dicom_file(ds), syntax)


def with_syntax(content: bytes, syntax: UID) -> bytes:
    """Replace the transfer syntax in the header of a file without changing its encoding."""
    at = content.index(b"\x02\0\x10\0UI") + 6
    value = syntax.encode() + b"\0" * (len(syntax) % 2)
    old = struct.unpack_from("<H", content, at)[0]
    group = struct.unpack_from("<I", content, 140)[0] + len(value) - old
    body = content[:at] + struct.pack("<H", len(value)) + value + content[at + 2 + old :]
    return body[:140] + struct.pack("<I", group) + body[144:]


def _fragments(*parts: bytes) -> bytes:
    """One frame in several fragments, with an empty offset table."""
    items = [b"", *(part + b"\0" * (len(part) % 2) for part in parts)]
    head = b"\xfe\xff\0\xe0"
    return b"".join(head + struct.pack("<I", len(item)) + item for item in items) + (
        b"\xfe\xff\xdd\xe0\0\0\0\0"
    )


def _deflated(body: bytes) -> bytes:
    """A deflated DICOM file with the data of a zlib stream as content."""
    content = factories.dicom_file(factories.dicom(_DEEP), DeflatedExplicitVRLittleEndian)
    start = 144 + int.from_bytes(content[140:144], "little")
    return content[:start] + body[2:-4]  # raw, without the header and checksum of zlib


def _tiff_bomb() -> bytes:
    small = bytearray(factories.raster(_GREY, "TIFF", compression="tiff_adobe_deflate"))
    return _with_size(small, 60_000, 60_000)


def _sized_tiff(width: int, height: int) -> bytes:
    return _with_size(bytearray(factories.tiff(_GREY)), width, height)


def _with_size(content: bytearray, width: int, height: int) -> bytes:
    (start,) = struct.unpack_from("<I", content, 4)
    for entry in range(struct.unpack_from("<H", content, start)[0]):
        at = start + 2 + 12 * entry
        tag = struct.unpack_from("<H", content, at)[0]
        if tag in (256, 257):
            struct.pack_into("<HII", content, at + 2, 4, 1, width if tag == 256 else height)
    return bytes(content)


def _sized_jpeg(width: int, height: int) -> bytes:
    content = bytearray(factories.raster(_GREY, "JPEG"))
    struct.pack_into(">HH", content, content.index(b"\xff\xc0") + 5, height, width)
    return bytes(content)


def _sized_bmp(width: int, height: int) -> bytes:
    content = bytearray(factories.raster(_GREY, "BMP"))
    struct.pack_into("<ii", content, 18, width, height)
    return bytes(content)


def _sized_webp(width: int, height: int) -> bytes:
    """Lossless WebP, which stores each side minus one in 14 bits."""
    content = bytearray(factories.raster(_GREY, "WEBP", lossless=True))
    at = content.index(b"VP8L") + 9
    (bits,) = struct.unpack_from("<I", content, at)
    struct.pack_into("<I", content, at, bits & ~0xFFFFFFF | (width - 1) | (height - 1) << 14)
    return bytes(content)
