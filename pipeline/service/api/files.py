"""Names of files in the Content-Disposition header (RFC 6266)."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

from ...report.record import is_harmful
from ...source import MAX_NAME_CHARS

_PARAMETER = re.compile(r'(?:^|;)\s*([^\s;="]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;]*)')
_EXTENDED = re.compile(r"(utf-8|iso-8859-1)'[^']*'(.*)", re.IGNORECASE)


def attachment(name: str) -> dict[str, str]:
    """Header for a file name with any characters."""
    return {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}"}


def file_name(disposition: str | None) -> str:
    """The file name of a header, without folders and control characters.

    Args:
        disposition: Value of the header; None without one.

    Returns:
        The name, or ``picture`` if there is none.
    """
    found = {name.lower(): value.strip() for name, value in _PARAMETER.findall(disposition or "")}
    name = _decoded(found.get("filename*", "")) or _unquoted(found.get("filename", ""))
    name = re.split(r"[\\/]", name)[-1]
    name = "".join(char for char in name if not is_harmful(char)).strip()
    return name[:MAX_NAME_CHARS] or "picture"


def _decoded(value: str) -> str:
    """A value with its character set (RFC 8187); empty if it has another form."""
    parts = _EXTENDED.fullmatch(value)
    return unquote(parts[2], parts[1], "replace") if parts else ""


def _unquoted(value: str) -> str:
    """A token or quoted string. A backslash before another character is a folder's."""
    if len(value) > 1 and value[0] == value[-1] == '"':
        return re.sub(r'\\(["\\])', r"\1", value[1:-1])
    return value
