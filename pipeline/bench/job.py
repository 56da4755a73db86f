"""The benchmark job: the same files, in the same order, for every contender."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

from ..errors import ImageError, InputMissingError
from ..io import decode, discover, read_file


@dataclass(frozen=True, slots=True)
class Job:
    """Files of the benchmark.

    Attributes:
        root: The input folder, or the folder of the input file.
        paths: Paths in order; files are repeated if there are too few.
        pictures: Expected number of rows: one per frame of each file.
        files: Number of different files.
        left_out: Number of skipped files that cannot be decoded; a contender that fails early
            would gain by them.
    """

    root: Path
    paths: tuple[Path, ...]
    pictures: int
    files: int
    left_out: int

    @property
    def repeated(self) -> bool:
        """Whether a file is read more than once."""
        return len(self.paths) > self.files


def choose_job(source: Path, pictures: int) -> Job:
    """Select files that can be decoded, in the order of ``fxpipe run``.

    Args:
        source: A file or a folder.
        pictures: Minimum number; if there are fewer, the files are repeated in a cycle. The
            frames of the last file may add some more.

    Raises:
        InputMissingError: The source does not exist, or no file can be decoded.
    """
    frames: dict[Path, int] = {}
    left_out = 0
    for path in discover(source):
        try:
            content, sha256 = read_file(path)
            count = sum(1 for _ in decode(content, path, sha256))
        except ImageError:
            count = 0
        if count:
            frames[path] = count
        else:
            left_out += 1
        if sum(frames.values()) >= pictures:
            break
    if not frames:
        raise InputMissingError(
            f"{source}: found {left_out} file(s) of which none can be decoded, expected at least "
            "one radiograph",
            "`fxpipe run` reports the reasons",
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
