"""Tables of text as spreadsheet programs save them: in what encoding, with what between columns."""

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
    """The text of a table: UTF-8, or UTF-16 with its byte-order mark.

    Raises:
        ValueError: It is neither; with what was found and what to do.
    """
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"found a byte that is no {encoding.upper().removesuffix('-SIG')} at {error.start}, "
            "wanted UTF-8: save it as 'CSV UTF-8'"
        ) from error
    if "\0" in text:
        raise ValueError("found NUL, wanted text: save it as 'CSV UTF-8'")
    return text


def separator_of(text: str) -> str:
    """What stands between the columns: what the header line has most of, outside of quotes."""
    header = _QUOTED.sub("", text.partition("\n")[0])
    return max(_SEPARATORS, key=header.count)
