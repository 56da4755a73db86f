"""Detection of encoding and separator of text tables from spreadsheet programs."""

from __future__ import annotations

import codecs
import re

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_SEPARATORS = ",;\t"
_QUOTED = re.compile(r'"[^"]*"')


def text_of(content: bytes) -> str:
    """Decode a table: UTF-8, or UTF-16 with a byte order mark.

    Raises:
        ValueError: The encoding is another one; the message has the position and a hint.
    """
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"the byte at {error.start} is not valid {encoding.upper().removesuffix('-SIG')}, "
            "expected UTF-8: save the table as 'CSV UTF-8'"
        ) from error
    if "\0" in text:
        raise ValueError("found a NUL character, expected text: save the table as 'CSV UTF-8'")
    return text


def separator_of(text: str) -> str:
    """Separator of the columns: the most frequent candidate in the header line, outside quotes."""
    header = _QUOTED.sub("", text.partition("\n")[0])
    return max(_SEPARATORS, key=header.count)
