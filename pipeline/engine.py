"""The engine: reads files, or content in memory, and judges their pictures as they arrive.

Other programs use :meth:`Engine.open`; see ``docs/embedding.md``.

An error in one file becomes a failed outcome of that file. An error of the device or the weights is
raised.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from .config import RunConfig
from .io.memory_budget import FILE_BYTES_A_PIXEL
from .judge import Judge
from .outcome import Outcome, Status
from .reading.open_reader import open_reader
from .reading.prepared_picture import Item, Prepared, Reader, ReadOptions
from .runtime.session import Weights, load_bundles
from .source import Source, bytes_in_memory
from .submissions import Submissions
from .threaded_pipeline import Flow, Result
from .timing import Clock

StudyOf = Callable[[Path | None, str | None], str | None]
"""Maps a file (None for content in memory) and the StudyInstanceUID of its header (None without
one) to the key of its study. Several threads call it concurrently."""


class Engine(Judge):
    """Reads files and judges their pictures with the networks of one weights folder.

    It is thread-safe. It is also a context manager: on exit it finishes the submitted files, or
    abandons them when the block raises.

    Args:
        weights: Opened bundles.
        config: Batch size, numbers of threads, heatmaps and identifiers.
        reader: Reads files; its owner stops it.
        clock: Records the time for reading, decoding, resizing, trunk and heads.
        rendered: Whether outcomes contain the picture, for reports.
        study_of: Returns the study of a file; None if studies are not needed.
    """

    def __init__(
        self,
        weights: Weights,
        config: RunConfig,
        reader: Reader,
        clock: Clock | None = None,
        *,
        rendered: bool = False,
        study_of: StudyOf | None = None,
    ) -> None:
        super().__init__(weights, config, clock)
        self._reader, self._study_of = reader, study_of
        identity = config.identifiers == "keep" or study_of is not None
        self._options = ReadOptions(weights.preprocessings, identity, rendered)
        self._opened = ExitStack()
        self._submissions = Submissions(
            self._read, self.judge, self.limits, bytes_in_memory,
            FILE_BYTES_A_PIXEL * 10**6 * config.megapixels, self._opened.close,
        )  # fmt: skip

    @classmethod
    def open(
        cls,
        weights: Path,
        config: RunConfig | None = None,
        *,
        rendered: bool = False,
        study_of: StudyOf | None = None,
    ) -> Self:
        """Open networks and a reader for a new engine; :meth:`close` releases them.

        Args:
            weights: See :func:`pipeline.runtime.session.load_bundles`.
            config: Settings; None for the defaults.
            rendered: See :class:`Engine`.
            study_of: See :class:`Engine`.

        Raises:
            BundleError: The weights are missing, altered or do not match each other.
            DeviceError: The requested device does not work.
            StartError: No worker can be started.
            UsageError: The settings do not match the weights.
        """
        config = config or RunConfig()
        with ExitStack() as opened:
            reader = opened.enter_context(open_reader(config))  # it starts in the background
            networks = load_bundles(weights, config)
            engine = cls(networks, config, reader, rendered=rendered, study_of=study_of)
            engine._opened.enter_context(opened.pop_all())
        return engine

    def read(self, source: Source) -> list[Outcome]:
        """Read and judge one file, and wait for its outcomes: see :meth:`submit`."""
        return self.submit(source).result()

    def submit(self, source: Source, timeout: float | None = None) -> Future[list[Outcome]]:
        """Read and judge one file in the background.

        No picture waits for another submission. Futures complete in any order. A callback of a
        future must not block here: it must pass a timeout of 0.

        Args:
            source: A file, or content in memory with a name.
            timeout: Seconds to wait while the number of files in flight reaches :attr:`limits`, or
                their content reaches 4 bytes for each pixel of ``megapixels``; None to wait
                without limit, 0 not to wait.

        Returns:
            A future of one outcome, or of one for each frame of a multi-frame file, in order; see
            :meth:`outcomes` for unreadable files. It raises DeviceError if the device fails and
            StartError if no worker can be started. A future that is cancelled before its file is
            read costs nothing.

        Raises:
            BusyError: The limits were reached during the whole timeout.
            RuntimeError: The engine is closed.
        """
        return self._submissions.submit(source, timeout)

    def close(self, *, wait: bool = True) -> None:
        """Accept no more files, and stop the reader that :meth:`open` has opened.

        Args:
            wait: Whether to finish the submitted files. Otherwise they are abandoned: their
                futures are cancelled or raise ``CancelledError``.
        """
        with self._opened:
            self._submissions.close(wait=wait)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(wait=kind is None)

    def outcomes(
        self,
        sources: Iterable[Source],
        *,
        ordered: bool = True,
        give_up: Callable[[], None] = lambda: None,
    ) -> Generator[Outcome, None, None]:
        """Judge a stream of files as they arrive.

        Args:
            sources: Files, or named contents in memory. A separate thread consumes them one by
                one, so the iterable may block for any time.
            ordered: Whether outcomes come in the order of ``sources``, or as soon as they are
                ready.
            give_up: Called when the caller stops early or the stream fails, before this method
                waits for the files that are being read.

        Yields:
            One outcome for a file, or one for each frame of a multi-frame file. When frame k of a
            file cannot be read, the earlier frames keep their outcomes and frame k gets a failed
            one. The same applies to a frame whose decoder crashes, hangs or needs too much memory.

        Raises:
            DeviceError: The device failed during the run.
            StartError: No worker can be started.
        """
        flow = Flow(self._read, self.judge, self.limits, ordered=ordered, give_up=give_up)
        with closing(flow.results(sources)) as results:
            yield from results

    def _read(self, source: Source) -> Iterator[Prepared | Result[Outcome]]:
        """The pictures of one file, then a failed outcome if reading fails."""
        for item in self._reader.read(source, self._options, self._clock):
            item = self._with_study(item)
            yield Result(item) if isinstance(item, Outcome) else item

    def _with_study(self, item: Item) -> Item:
        """Add the study; remove identifiers unless the configuration keeps them."""
        uid = (item.identity or {}).get("StudyInstanceUID") or None
        study = self._study_of(item.image.path, uid) if self._study_of else None
        if isinstance(item, Outcome) and item.status is Status.UNSUPPORTED:
            study = None  # a document or a CT slice does not belong to the study's pictures
        kept = isinstance(item, Prepared) and self._config.identifiers == "keep"
        return replace(item, identity=item.identity if kept else None, study=study)


def run(
    sources: Iterable[Source],
    weights: Weights,
    config: RunConfig,
    clock: Clock | None = None,
    *,
    rendered: bool = False,
    study_of: StudyOf | None = None,
    reader: Reader | None = None,
) -> Generator[Outcome, None, None]:
    """Yield the outcomes of files in order, with a reader for this job only.

    Args:
        sources: See :meth:`Engine.outcomes`.
        weights: See :class:`Engine`.
        config: See :class:`Engine`.
        clock: See :class:`Engine`.
        rendered: See :class:`Engine`.
        study_of: See :class:`Engine`.
        reader: See :func:`pipeline.reading.open_reader.open_reader`; None to open one here.
    """
    with ExitStack() as stack:
        reader = reader or stack.enter_context(open_reader(config))
        engine = Engine(weights, config, reader, clock, rendered=rendered, study_of=study_of)
        # The reader serves this job only: stop it if the caller stops early.
        outcomes = engine.outcomes(sources, give_up=reader.stop)
        yield from stack.enter_context(closing(outcomes))
