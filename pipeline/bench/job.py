"""The job that every contender does: the same files, in the same order."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

from ..errors import ImageError, InputMissingError
from ..io import decode, discover, read_file


@dataclass(frozen=True, slots=True)
class Job:
    """Files to be read.

    Attributes:
        root: The folder (or the folder of the file) that was named.
        paths: In order; a file stands here several times where there were too few.
        pictures: How many rows come out: one for each frame of each file.
        files: How many files there are, each counted once.
        left_out: Files that cannot be decoded: a contender that fails early would gain by them.
    """

    root: Path
    paths: tuple[Path, ...]
    pictures: int
    files: int
    left_out: int

    @property
    def repeated(self) -> bool:
        """Whether some file is read more than once."""
        return len(self.paths) > self.files


def choose_job(source: Path, pictures: int) -> Job:
    """Take files that can be decoded, in the order of ``fxpipe run``.

    Args:
        source: A file or a folder.
        pictures: How many are wanted; where there are fewer, files are repeated in a cycle. The
            frames of the last file may bring some more.

    Raises:
        InputMissingError: There is no such folder, or nothing in it can be decoded.
    """
    frames: dict[Path, int] = {}
    left_out = 0
    for path in discover(source):
        try:
            content, sha256 = read_file(path)
            found = sum(1 for _ in decode(content, path, sha256))
        except ImageError:
            found = 0
        if found:
            frames[path] = found
        else:
            left_out += 1
        if sum(frames.values()) >= pictures:
            break
    if not frames:
        raise InputMissingError(
            f"{source}: found {left_out} file(s) of which none can be decoded, wanted at least "
            "one radiograph",
            "see what `fxpipe run` says of them",
        )
    paths: list[Path] = []
    total = 0
    for path in cycle(frames):
        if total >= pictures:
            break
        paths.append(path)
        total += frames[path]
    root = source if source.is_dir() else source.parent
    return Job(root, tuple(paths), total, len(frames), left_out)
