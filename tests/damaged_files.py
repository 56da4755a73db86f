"""Small valid files of every format, damaged at random with a fixed seed."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import factories
import numpy as np
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

_NUMBERS = (0, 1, 2, 8, 12, 16, 32, 127, 128, 255, 256, 4096, 32767, 32768, 65535, 65536)
_TEXTS = (
    *(b"", b"0", b"1", b"-1", b"nan", b"inf", b"1e400", b"-1e-400", b"0.5", b"99999999999", b"a"),
    *(b"\xff\xfe", b"1\\2", b"\\\\", b"1\\", b"MONOCHROME1", b"PALETTE COLOR", b"YBR_FULL_422"),
    *(b"RGB", b"DX", b"CT", b"IDENTITY", b"INVERSE", b"SIGMOID", b"LINEAR_EXACT", b"A" * 70),
    *(b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.1", b"1.2.840.10008.1.2.2", b"1.2.3"),
    *(b"1.2.840.10008.1.2.5", b"1.2.840.10008.1.2.4.50", b"1.2.840.10008.1.2.4.90"),
)


@cache
def seeds() -> dict[str, bytes]:
    """Valid files of at most 3 kB each, by a name for their format."""
    grey = factories.ramp(11, 9, 0, 255, np.uint8)
    deep = factories.ramp(11, 9, 0, 65535)
    colour = np.stack([grey, grey[::-1], grey.T[:9].repeat(2, 0)[:11, :9]], -1)
    pages = [Image.fromarray(grey), Image.fromarray(255 - grey)]
    animated = {"save_all": True, "append_images": pages[1:]}
    exif = Image.Exif()
    exif[0x0112] = 6
    palette = Image.fromarray(grey).convert("P")
    clear = Image.fromarray(grey).convert("LA")
    clear.putalpha(100)
    rasters = {
        "jpeg": factories.raster(grey, "JPEG", exif=exif.tobytes()),
        "jpeg colour": factories.raster(colour, "JPEG", progressive=True),
        "jpeg cmyk": factories.raster(Image.fromarray(colour).convert("CMYK"), "JPEG"),
        "png": factories.raster(grey, "PNG", exif=exif.tobytes()),
        "png deep": factories.raster(deep, "PNG"),
        "png palette": factories.raster(palette, "PNG", transparency=3),
        "png alpha": factories.raster(clear, "PNG"),
        "png animated": factories.raster(pages[0], "PNG", **animated),
        "tiff": factories.tiff(deep, orientation=6),
        "tiff float": factories.tiff(deep.astype(np.float32), byte_order=">"),
        "tiff pages": factories.raster(pages[0], "TIFF", **animated, compression="tiff_lzw"),
        "tiff deflate": factories.raster(colour, "TIFF", compression="tiff_adobe_deflate"),
        "tiff jpeg": factories.raster(grey, "TIFF", compression="jpeg"),
        "webp": factories.raster(colour, "WEBP", lossless=True, exif=exif.tobytes()),
        "webp lossy": factories.raster(colour, "WEBP"),
        "webp animated": factories.raster(pages[0], "WEBP", **animated),
        "bmp": factories.raster(colour, "BMP"),
        "bmp palette": factories.raster(palette, "BMP"),
    }
    return rasters | _dicom_seeds(grey, deep, colour)


def _dicom_seeds(
    grey: factories.Pixels, deep: factories.Pixels, colour: factories.Pixels
) -> dict[str, bytes]:
    header: dict[str, Any] = {
        **{"WindowCenter": 30000, "WindowWidth": 20000, "RescaleSlope": 1, "RescaleIntercept": 0},
        **{"PixelSpacing": [0.1, 0.1], "PixelPaddingValue": 7, "VOILUTFunction": "LINEAR"},
    }
    plain = factories.dicom(deep, **header)
    tables: dict[str, Any] = {"VOILUTSequence": factories.lut(list(range(256)), 0, 8)}
    tables["ModalityLUTSequence"] = factories.lut(list(range(0, 512, 2)), 0, 16)
    jpeg = factories.raster(grey, "JPEG")
    files = {
        "dicom": factories.dicom_file(plain),
        "dicom implicit": factories.dicom_file(factories.dicom(deep), ImplicitVRLittleEndian),
        "dicom big": factories.dicom_file(factories.dicom(deep), ExplicitVRBigEndian),
        "dicom deflated": factories.dicom_file(
            factories.dicom(deep), DeflatedExplicitVRLittleEndian
        ),
        "dicom frames": factories.dicom_file(factories.dicom(np.stack([deep, deep]))),
        "dicom colour": factories.dicom_file(factories.dicom(colour)),
        "dicom tables": factories.dicom_file(factories.dicom(grey, **tables)),
        "dicom bare": factories.dicom_file(factories.dicom(grey))[132:],
    }
    for syntax, stream in (
        (JPEGBaseline8Bit, jpeg),
        (JPEG2000Lossless, factories.raster(grey, "JPEG2000", no_jp2=True)),
    ):
        ds = factories.dicom(grey)
        ds.PixelData = encapsulate([stream])
        ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
        ds.file_meta.TransferSyntaxUID = syntax
        files[f"dicom {syntax.name[:9].lower()}"] = factories.dicom_file(ds)
    ds = factories.dicom(deep)
    ds.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    return files | {"dicom rle": factories.dicom_file(ds)}


def mutants(kind: str, seed: int, count: int) -> Iterator[bytes]:
    """Yield ``count`` damaged files of one format; the same seed gives the same files."""
    rng = random.Random(seed)
    for _ in range(count):
        content = bytearray(seeds()[kind])
        for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
            change = rng.choice(_CHANGES)
            if content:
                change(content, rng)
        if kind.startswith("dicom") and rng.random() < 0.4:
            _set_element(content, rng)
        if kind.startswith("png") and rng.random() < 0.8:
            _correct_checksums(content)
        yield bytes(content)


def _flip(content: bytearray, rng: random.Random) -> None:
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def _set_byte(content: bytearray, rng: random.Random) -> None:
    content[rng.randrange(len(content))] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))


def _set_number(content: bytearray, rng: random.Random) -> None:
    number = rng.choice((*_NUMBERS, 2**31 - 1, 2**31, 2**32 - 1))
    code = rng.choice(("<H", ">H", "<I", ">I"))
    packed = struct.pack(code, number % 256 ** struct.calcsize(code))
    at = rng.randrange(len(content))
    content[at : at + len(packed)] = packed


def _cut_end(content: bytearray, rng: random.Random) -> None:
    del content[rng.randrange(len(content)) :]


def _cut_out(content: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(content))
    del content[at : at + rng.choice((1, 2, 4, 12, 100))]


def _repeat(content: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(content))
    part = content[at : at + rng.choice((1, 2, 8, 12, 100))]
    content[at:at] = part * rng.choice((1, 1, 2, 50))


def _insert(content: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(content))
    content[at:at] = rng.randbytes(rng.choice((1, 2, 4, 16)))


def _blank(content: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(content))
    size = min(rng.choice((2, 8, 64)), len(content) - at)
    content[at : at + size] = bytes([rng.choice((0, 255))]) * size


def _splice(content: bytearray, rng: random.Random) -> None:
    other = seeds()[rng.choice(list(seeds()))]
    at, begin = rng.randrange(len(content)), rng.randrange(len(other))
    content[at:] = other[begin:]


_CHANGES: tuple[Callable[[bytearray, random.Random], None], ...] = (
    *(_flip, _flip, _set_byte, _set_byte, _set_number, _set_number, _set_number),
    *(_cut_end, _cut_out, _repeat, _insert, _blank, _splice),
)

_TAGS = (
    *((0x0002, 0x0010), (0x0008, 0x0060), (0x0028, 0x0002), (0x0028, 0x0004), (0x0028, 0x0006)),
    *((0x0028, 0x0008), (0x0028, 0x0010), (0x0028, 0x0011), (0x0028, 0x0030), (0x0028, 0x0100)),
    *((0x0028, 0x0101), (0x0028, 0x0102), (0x0028, 0x0103), (0x0028, 0x0120), (0x0028, 0x1050)),
    *((0x0028, 0x1051), (0x0028, 0x1052), (0x0028, 0x1053), (0x0028, 0x1056), (0x0028, 0x3002)),
    *((0x0028, 0x3006), (0x7FE0, 0x0010)),
)


def _set_element(content: bytearray, rng: random.Random) -> None:
    """Replace the value of an element with a two-byte length (explicit VR, little endian)."""
    at = content.find(struct.pack("<HH", *rng.choice(_TAGS)))
    if at < 0 or at + 8 > len(content) or not content[at + 4 : at + 6].isalpha():
        return
    (length,) = struct.unpack_from("<H", content, at + 6)
    if bytes(content[at + 4 : at + 6]) in (b"US", b"SS"):
        value = struct.pack("<H", rng.choice(_NUMBERS) % 65536) * rng.choice((0, 1, 1, 1, 2, 3))
    else:
        value = rng.choice(_TEXTS)
        value += b" " * (len(value) % 2)
    content[at + 6 : at + 8 + length] = struct.pack("<H", len(value)) + value


def _correct_checksums(content: bytearray) -> None:
    """Correct the checksums of PNG chunks; otherwise decoders reject the file at once."""
    at = 8
    while at + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        end = at + 8 + length
        if end + 4 > len(content):
            return
        struct.pack_into(">I", content, end, zlib.crc32(content[at + 4 : end]))
        at = end + 4
