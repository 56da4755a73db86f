"""Input from object stores and other remote folders, by fsspec.

Each file is fetched to a temporary folder shortly before it is read, and removed when its rows are
written, so that a run needs space for a few files only and treats them like local ones.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ..errors import InputMissingError
from ..ordered_pool import in_order
from .limits import MAX_FILE_BYTES
from .own_output import OVERLAYS, TABLE, begins_table, is_overlay, is_result

if TYPE_CHECKING:
    from ..outcome import Outcome

log = logging.getLogger(__name__)

_HEAD_BYTES = 64
_UP = "%2E%2E"
_TAIL_PARTS = 3
"""Parts of the remote path that the local one ends with: MURA's studies are recognised by them."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A remote file.

    Attributes:
        name: Path below the input, with forward slashes.
        size: Bytes; None if unknown.
    """

    name: str
    size: int | None


class RemoteFolder:
    """A folder of an object store or another remote file system.

    Args:
        url: See :func:`fsspec.core.url_to_fs`; credentials come from the environment or the
            configuration of the file system.

    Raises:
        InputMissingError: There is no such folder, or it cannot be accessed.
        ModuleNotFoundError: The file system needs a package that is not installed.
    """

    def __init__(self, url: str) -> None:
        from fsspec.core import url_to_fs  # type: ignore[import-untyped]

        self.url = url
        try:
            # A new instance: those of fsspec's cache may have an older listing.
            self._system, path = url_to_fs(url, skip_instance_cache=True)
            self._path = str(path).rstrip("/")
            found = self._system.exists(self._path)
        except ImportError as error:
            raise ModuleNotFoundError(str(error), name=_package(error)) from error
        except Exception as error:
            raise _unavailable(url, error) from error
        if not found:
            raise InputMissingError(f"{url}: not found, expected a folder")

    @property
    def parts(self) -> tuple[str, ...]:
        """The last parts of its path."""
        return PurePosixPath(self._path).parts[-_TAIL_PARTS:]

    def files(self) -> Iterator[RemoteFile]:
        """Every file, in the order of :func:`.discover.discover`; results of fxpipe are left out.

        Raises:
            InputMissingError: The folder contains no file, or cannot be listed.
        """
        any_file = False
        stack = [iter(self._entries(""))]
        while stack:
            entry = next(stack[-1], None)
            if entry is None:
                stack.pop()
            elif isinstance(entry, RemoteFile):
                any_file = True
                yield entry
            else:
                stack.append(iter(self._entries(entry)))
        if not any_file:
            raise InputMissingError(
                f"{self.url}: found a folder without files, expected at least one file"
            )

    def fetch(self, file: RemoteFile, target: Path) -> None:
        """Copy a file to the local disk.

        Raises:
            OSError: It cannot be read.
        """
        try:
            self._system.get_file(f"{self._path}/{file.name}", str(target))
        except OSError:
            raise
        except Exception as error:
            raise OSError(f"{type(error).__name__}: {error}") from error

    def _entries(self, folder: str) -> list[RemoteFile | str]:
        """Files and folders in a folder, by name."""
        whole = f"{self._path}/{folder}".rstrip("/")
        try:
            listed = self._system.ls(whole, detail=True)
        except Exception as error:
            raise _unavailable(f"{self.url} ({folder})", error) from error
        named: dict[str, dict[str, Any]] = {}
        for one in listed:
            path = str(one["name"]).rstrip("/")
            if path.strip("/") != whole.strip("/"):  # some list the folder itself
                named[path.rpartition("/")[2]] = one
        skipped = self._is_own(folder, set(named))
        return [
            name if one["type"] == "directory" else RemoteFile(name, one.get("size"))
            for base in sorted(named)
            if (one := named[base]) and not skipped(base)
            for name in [f"{folder}/{base}".lstrip("/")]
        ]

    def _is_own(self, folder: str, names: set[str]) -> Callable[[str], bool]:
        """Whether a name in a folder is that of a result of fxpipe."""
        parent, _, last = folder.rpartition("/")
        if last == OVERLAYS and self._is_table(f"{parent}/{TABLE}".lstrip("/")):
            return is_overlay
        return is_result if TABLE in names and self._is_table(f"{folder}/{TABLE}") else _never

    def _is_table(self, name: str) -> bool:
        path = f"{self._path}/{name.lstrip('/')}"
        try:
            return begins_table(self._system.cat_file(path, start=0, end=_HEAD_BYTES))
        except Exception:  # noqa: BLE001  (each file system has errors of its own)
            return False


class Fetched:
    """Local copies of remote files, in order: a few ahead of the one that is judged.

    As a :class:`pipeline.report.writer.ReportWriter` it removes a copy when the next file begins.

    Args:
        remote: Where the files are.
        folder: An empty local folder.
        ahead: Number of files to fetch ahead.
        threads: Number of files to fetch at the same time.

    Attributes:
        root: Local folder that stands for the remote one.
    """

    def __init__(self, remote: RemoteFolder, folder: Path, ahead: int, threads: int) -> None:
        self._remote, self._ahead, self._threads = remote, ahead, threads
        self.root = folder.joinpath(*(part for part in remote.parts if part.strip(".")))
        self.root.mkdir(parents=True, exist_ok=True)
        self._last: Path | None = None

    @property
    def url(self) -> str:
        """Address of the remote folder."""
        return self._remote.url

    def paths(self) -> Generator[Path, None, None]:
        """The local copy of each file; one that cannot be fetched has no copy."""
        tasks = (partial(self._fetch, one) for one in self._remote.files())
        with closing(in_order(tasks, self._threads, self._ahead, "fxpipe-fetch")) as paths:
            yield from paths

    def write(self, outcome: Outcome) -> None:
        """Remove the copy of the file before this one."""
        path = outcome.image.path
        if self._last is not None and self._last != path:
            self.remove(self._last)
        self._last = path

    def remove(self, path: Path) -> None:
        """Remove a copy, and its folders if they are empty."""
        with suppress(OSError):
            path.unlink()
            for folder in path.parents:
                if folder == self.root:
                    break
                folder.rmdir()

    def _fetch(self, file: RemoteFile) -> Path:
        # An object store allows names that lead out of a folder.
        parts = [_UP if part in ("", ".", "..") else part for part in file.name.split("/")]
        target = self.root.joinpath(*parts)
        # Another thread may remove the empty folder in the meantime.
        for _ in range(10):
            with suppress(FileNotFoundError):
                target.parent.mkdir(parents=True, exist_ok=True)
                target.touch()
                break
        try:
            if file.size is not None and file.size > MAX_FILE_BYTES:
                os.truncate(target, file.size)  # it is refused by its size, so no content is needed
            else:
                self._remote.fetch(file, target)
        except OSError as error:
            log.warning("%s/%s: cannot be fetched: %s", self._remote.url, file.name, error)
            with suppress(OSError):
                target.unlink()
        return target


def _never(_: str) -> bool:
    return False


def _package(error: ImportError) -> str:
    """The package that a file system needs, such as s3fs."""
    return error.name or str(error).partition("Install ")[2].partition(" ")[0] or str(error)


def _unavailable(url: str, error: Exception) -> InputMissingError:
    return InputMissingError(
        f"{url}: cannot be accessed ({type(error).__name__}: {error})",
        "check the address and the credentials",
    )
