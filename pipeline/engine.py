"""Reads and judges files, or contents in memory, as they come.

:meth:`Engine.open` is the way in for other programs: see ``docs/embedding.md``.

What one file does wrong becomes its own failed outcome; what the device or the weights do wrong is
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

from .clock import Clock
from .config import RunConfig
from .domain import Outcome, Status
from .flow import Flow, Result
from .io.room import FILE_BYTES_A_PIXEL
from .judge import Judge
from .reading.opened import open_reader
from .reading.prepared import Item, Prepared, Reader, ReadOptions
from .runtime.session import Weights, load_bundles
from .source import Source, bytes_in_memory
from .submissions import Submissions

StudyOf = Callable[[Path | None, str | None], str | None]
"""From a file, None for content in memory, and the StudyInstanceUID of its header, None without
one, to the key of its study; called by several threads at once."""


class Engine(Judge):
    """Reads files and judges their pictures with the networks of one weights folder.

    It may be used by several threads at once. It is a context manager that closes itself: when the
    block ends with an error, what was submitted is abandoned, otherwise it is finished.

    Args:
        weights: Opened bundles.
        config: Batch size, numbers of threads, heatmaps and identifiers.
        reader: Reads files, and is stopped by its owner.
        clock: Told how long the threads read, decode, resize, and run trunk and heads.
        rendered: Whether outcomes carry the picture, for reports.
        study_of: Tells the study of a file; None where that is of no interest.
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
        """An engine with networks and a reader of its own, for :meth:`close` to end.

        Args:
            weights: See :func:`pipeline.runtime.session.load_bundles`.
            config: Settings; None for the defaults.
            rendered: See :class:`Engine`.
            study_of: Likewise.

        Raises:
            BundleError: The weights are missing, altered or do not fit each other.
            DeviceError: The device that was asked for does not work.
            StartError: No worker can be started.
            UsageError: The settings do not fit the weights.
        """
        config = config or RunConfig()
        with ExitStack() as opened:
            reader = opened.enter_context(open_reader(config))  # it starts meanwhile
            networks = load_bundles(weights, config)
            engine = cls(networks, config, reader, rendered=rendered, study_of=study_of)
            engine._opened.enter_context(opened.pop_all())
        return engine

    def read(self, source: Source) -> list[Outcome]:
        """Read and judge one file, and wait for its outcomes: see :meth:`submit`."""
        return self.submit(source).result()

    def submit(self, source: Source, timeout: float | None = None) -> Future[list[Outcome]]:
        """Read and judge one file in the background.

        No picture waits for another submission. Files are answered as soon as they are ready, in
        any order; the order of the futures is that of the submissions. A callback of a future must
        not wait here: it gives a timeout of 0.

        Args:
            source: A file, or content in memory with a name.
            timeout: Seconds to wait while as many files are in flight as :attr:`limits` says, or
                contents of 4 bytes for each of ``megapixels``; None for as long as it takes, 0 for
                not at all.

        Returns:
            A future of one outcome, or of one for each frame of a multi-frame file, in order; see
            :meth:`outcomes` for what cannot be read. It raises DeviceError if the device gave up
            and StartError if no worker can be started. One that is cancelled before the file is
            read costs nothing.

        Raises:
            BusyError: Too much was in flight for all that time.
            RuntimeError: The engine is closed.
        """
        return self._submissions.submit(source, timeout)

    def close(self, *, wait: bool = True) -> None:
        """Accept no more files, and end the reader that :meth:`open` has opened.

        Args:
            wait: Whether to finish what was submitted. Otherwise it is abandoned, and its futures
                are cancelled or raise ``CancelledError``.
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
        """Judge a stream of files as they come.

        Args:
            sources: Any number of files, or of contents in memory with their names, taken one by
                one on a thread of its own: the stream may wait for the next one as long as it
                likes.
            ordered: Whether outcomes come in the order of ``sources``, or as soon as they are
                there.
            give_up: Called when the stream is left early or fails, before the end waits for the
                files that are being read.

        Yields:
            One outcome for a file, or one for each frame of a multi-frame file. When frame k of a
            file cannot be read, the frames before it keep their outcomes and frame k gets a failed
            one. So does one whose decoder crashes, hangs or takes too much memory.

        Raises:
            DeviceError: The device gave up in the middle of the run.
            StartError: No worker can be started.
        """
        flow = Flow(self._read, self.judge, self.limits, ordered=ordered, give_up=give_up)
        with closing(flow.results(sources)) as results:
            yield from results

    def _read(self, source: Source) -> Iterator[Prepared | Result[Outcome]]:
        """The pictures of one file, and the outcome of what ends it."""
        for item in self._reader.read(source, self._options, self._clock):
            item = self._of_study(item)
            yield Result(item) if isinstance(item, Outcome) else item

    def _of_study(self, item: Item) -> Item:
        """The item with its study; identifiers go no further unless they are kept."""
        uid = (item.identity or {}).get("StudyInstanceUID") or None
        study = self._study_of(item.image.path, uid) if self._study_of else None
        if isinstance(item, Outcome) and item.status is Status.UNSUPPORTED:
            study = None  # a document or a CT slice is no picture that the study has lost
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
    """The outcomes of files in their order, with a reader for this one job.

    Args:
        sources: See :meth:`Engine.outcomes`.
        weights: See :class:`Engine`, as for the next four.
        config: Settings.
        clock: Told how long everything takes.
        rendered: Whether outcomes carry the picture.
        study_of: Tells the study of a file.
        reader: See :func:`pipeline.reading.opened.open_reader`; None to open one here.
    """
    with ExitStack() as stack:
        reader = reader or stack.enter_context(open_reader(config))
        engine = Engine(weights, config, reader, clock, rendered=rendered, study_of=study_of)
        # It is for this job only: when that is left early, no thread shall wait for a worker.
        outcomes = engine.outcomes(sources, give_up=reader.stop)
        yield from stack.enter_context(closing(outcomes))
