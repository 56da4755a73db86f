"""Input sources: a file, or the content of a file in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

MAX_NAME_CHARS = 1024


@dataclass(frozen=True, slots=True)
class NamedBytes:
    """The content of a file in memory, as a service receives it.

    Attributes:
        name: Name in rows, messages and reports, as sent, 1 to 1024 characters. It is never used
            as a path on this machine; its suffix indicates whether the sender means a picture.
        content: The whole file.

    Raises:
        ValueError: The name is empty or too long.
    """

    name: str
    content: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not 1 <= len(self.name) <= MAX_NAME_CHARS:
            raise ValueError(
                f"found a name of {len(self.name)} characters, expected 1 to {MAX_NAME_CHARS}"
            )


Source = Path | NamedBytes


def bytes_in_memory(source: Source) -> int:
    """Size of a source in memory in bytes; 0 for a file that is not read yet."""
    return len(source.content) if isinstance(source, NamedBytes) else 0
