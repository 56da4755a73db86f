"""What is read: a file, or the content of one that is in memory already."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

MOST_NAME_CHARS = 1024


@dataclass(frozen=True, slots=True)
class NamedBytes:
    """The content of a file in memory, as a service receives it.

    Attributes:
        name: What rows, messages and reports call it, as sent, 1 to 1024 characters. It is never
            used as a path on this machine; its suffix says whether the sender means a picture.
        content: The whole file.

    Raises:
        ValueError: The name is empty or too long.
    """

    name: str
    content: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not 1 <= len(self.name) <= MOST_NAME_CHARS:
            raise ValueError(
                f"found a name of {len(self.name)} characters, wanted 1 to {MOST_NAME_CHARS}"
            )


Source = Path | NamedBytes


def bytes_in_memory(source: Source) -> int:
    """How many bytes a source holds in memory: none for a file, which is not read yet."""
    return len(source.content) if isinstance(source, NamedBytes) else 0
