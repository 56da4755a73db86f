"""Read → trunk → route → fracture: batches across files, order kept, memory constant.

Reader threads read and resize ahead of the networks; lanes, threads too, take whole batches
through the networks; the caller gets the outcomes in order. What one picture does wrong becomes
its own failed outcome; what the device or the weights do wrong ends the run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from .clock import Clock
from .config import RunConfig
from .decision import decide, examiners, refusal, route
from .domain import (
    Array,
    Flag,
    FractureCall,
    Heatmap,
    ImageRef,
    Outcome,
    Placement,
    RegionCall,
    Rendered,
    StageOutput,
    Status,
    Verdict,
    XrayImage,
)
from .errors import ImageError, NotAPictureError
from .flags import quality, reconcile
from .heatmap import to_heatmap
from .in_order import in_order
from .io import Room, decode, read_file, study_uid
from .preprocess import PreprocessSpec, preprocess
from .render import render
from .runtime.network import Batch, Stage
from .runtime.session import Weights


@dataclass(frozen=True, slots=True)
class _Prepared:
    """One picture, ready for every network; its pixels in full depth are gone.

    Attributes:
        image: Where it comes from.
        arrays: (1, H, W) float32 for each kind of preprocessing that the run needs.
        placements: Where the picture lies on each of them.
        header, identity, rendered, study: See :class:`pipeline.domain.Outcome`.
        flags: Doubts about its quality.
        elapsed_ms: Reading, decoding and resizing.
    """

    image: ImageRef
    arrays: Mapping[PreprocessSpec, Array]
    placements: Mapping[PreprocessSpec, Placement]
    header: Mapping[str, str] | None
    identity: Mapping[str, str] | None
    rendered: Rendered | None
    flags: tuple[Flag, ...]
    study: str | None
    elapsed_ms: float


@dataclass(frozen=True, slots=True)
class _Job:
    """What is the same for every picture of a run."""

    weights: Weights
    config: RunConfig
    rendered: bool
    clock: Clock
    study_of: StudyOf | None


_Item = _Prepared | Outcome
StudyOf = Callable[[Path, str | None], str | None]
"""From a file and the StudyInstanceUID of its header, None without one, to the key of its study;
called by several threads at once."""


def run(
    paths: Iterable[Path],
    weights: Weights,
    config: RunConfig,
    clock: Clock | None = None,
    *,
    rendered: bool = False,
    study_of: StudyOf | None = None,
) -> Iterator[Outcome]:
    """Yield an outcome for every picture of every file, in the order of ``paths``.

    Args:
        paths: Files; read lazily, so any number of them.
        weights: Opened bundles.
        config: Batch size, numbers of threads, heatmaps and identifiers.
        clock: Told how long the threads read, decode, resize, and run trunk and heads.
        rendered: Whether outcomes carry the picture, for reports.
        study_of: Tells the study of a file; None where that is of no interest.

    Yields:
        One outcome for a file, or one for each frame of a multi-frame file. When frame k of a
        file cannot be read, the frames before it keep their outcomes and frame k gets a failed
        one.

    Raises:
        DeviceError: The device gave up in the middle of the run.
    """
    job = _Job(weights, config, rendered, clock or Clock(), study_of)
    # Closed explicitly: a consumer that stops early leaves no thread at work.
    with closing(_read_ahead(paths, job)) as items:
        tasks = (partial(_flush, batch, job) for batch in _batches(items, config))
        lanes = in_order(tasks, config.lanes, 2 * config.lanes, "fxpipe-lane")
        with closing(lanes) as flushed:
            for outcomes in flushed:
                yield from outcomes


def _batches(items: Iterable[_Item], config: RunConfig) -> Iterator[list[_Item]]:
    """Items in groups with a batch of readable pictures each, and what failed between them."""
    # The bound on waiting items keeps memory constant where bad files are many and good ones
    # too few to fill a batch.
    most_waiting = 8 * config.batch_size
    waiting: list[_Item] = []
    ready = 0
    for item in items:
        waiting.append(item)
        ready += isinstance(item, _Prepared)
        if ready in (0, config.batch_size) or len(waiting) >= most_waiting:
            yield waiting
            waiting, ready = [], 0
    yield waiting


def _read_ahead(paths: Iterable[Path], job: _Job) -> Generator[_Item, None, None]:
    """Prepare files on reader threads, a bounded number ahead of the consumer, in order."""
    room = Room(job.config.megapixels * 10**6)
    tasks = (partial(_prepare_in, room, path, job) for path in paths)
    threads = job.config.reader_threads
    ahead = max(2 * job.config.batch_size, 2 * threads)
    with closing(in_order(tasks, threads, ahead, "fxpipe-read")) as prepared:
        for items in prepared:
            yield from items


def _prepare_in(room: Room, path: Path, job: _Job) -> list[_Item]:
    """Prepare one file as soon as there is room for its content."""
    with room.for_file(path):
        return _prepare(path, job, room)


def _prepare(path: Path, job: _Job, room: Room) -> list[_Item]:
    """Read one file and resize each of its frames; never raises for what the file holds."""
    items: list[_Item] = []
    content, sha256 = b"", None
    started = time.perf_counter()
    try:
        with job.clock.measure("read"):
            content, sha256 = read_file(path)
        # Closed explicitly: whatever ends this, the room is given back.
        with closing(decode(content, path, sha256, room)) as images:
            while True:
                with job.clock.measure("decode"):
                    image = next(images, None)
                if image is None:
                    break
                with job.clock.measure("resize"):
                    items.append(_resized(image, job, started))
                del image  # not kept while the next one is decoded
                started = time.perf_counter()
        if not items:
            raise ImageError(f"{path.name}: found a file without a picture, wanted at least one")
    except ImageError as error:
        unsupported = isinstance(error, NotAPictureError)
        items.append(
            Outcome(
                image=ImageRef(path, len(items) or None, sha256),
                status=Status.UNSUPPORTED if unsupported else Status.FAILED,
                error=str(error),
                elapsed_ms=_since(started),
                study=job.study_of and job.study_of(path, study_uid(content)),
            )
        )
    return items


def _resized(image: XrayImage, job: _Job, started: float) -> _Prepared:
    """What is kept of a picture."""
    uid = (image.identity or {}).get("StudyInstanceUID") or None
    placed = {spec: preprocess(image.pixels, spec) for spec in job.weights.preprocessings}
    return _Prepared(
        image=image.source,
        arrays={spec: array for spec, (array, _) in placed.items()},
        placements={spec: placement for spec, (_, placement) in placed.items()},
        header=image.dicom,
        identity=image.identity if job.config.identifiers == "keep" else None,
        rendered=render(image.pixels) if job.rendered else None,
        flags=quality(image.pixels),
        study=job.study_of and job.study_of(image.source.path, uid),
        elapsed_ms=_since(started),
    )


def _flush(items: Sequence[_Item], job: _Job) -> list[Outcome]:
    """Run one batch and put its outcomes back between those that were failed already."""
    prepared = [item for item in items if isinstance(item, _Prepared)]
    outcomes: Iterator[Outcome] = iter(())
    if prepared:
        with job.clock.measure("heads"):
            outcomes = iter(_judge(prepared, job))
    return [next(outcomes) if isinstance(item, _Prepared) else item for item in items]


def _judge(prepared: Sequence[_Prepared], job: _Job) -> list[Outcome]:
    """Route every picture of a batch, then let each specialist look at its own rows."""
    started = time.perf_counter()
    weights = job.weights
    batch = Batch([item.arrays for item in prepared], weights.trunks, job.clock)
    calls: list[RegionCall | None] = [None] * len(prepared)
    faults: list[str | None] = [None] * len(prepared)
    if weights.region is not None:
        calls = _route(weights.region, batch)
        faults = [None if call else "the region stage gave no number for it" for call in calls]
    looking = [
        examiners(call, weights.fracture) if fault is None else ()
        for call, fault in zip(calls, faults, strict=True)
    ]
    findings: list[list[FractureCall]] = [[] for _ in prepared]
    for region, specialist in weights.fracture.items():
        rows = [i for i, names in enumerate(looking) if region in names]
        if not rows:
            continue
        output = specialist.look(batch, rows, evidence=job.config.shown_heatmaps != "none")
        for row, i in enumerate(rows):
            finding = _finding(row, output, region, prepared[i], job)
            if finding is None:
                faults[i] = f"the {region} specialist gave no number for it"
            else:
                findings[i].append(finding)
    share_ms = _since(started) / len(prepared)
    return [
        _outcome(item, call, tuple(found), fault, share_ms, weights)
        for item, call, found, fault in zip(prepared, calls, findings, faults, strict=True)
    ]


def _finding(
    row: int, output: StageOutput, region: str, item: _Prepared, job: _Job
) -> FractureCall | None:
    """What a specialist says of one of its rows; None where it gave something unusable."""
    probability = float(output.probabilities[row, 0])
    if not np.isfinite(probability):
        return None
    spec, point = job.weights.fracture[region].spec, job.weights.points[region]
    heatmap: Heatmap | None = None
    shown = job.config.shown_heatmaps == "all" or point.verdict(probability) is not Verdict.NEGATIVE
    if output.evidence is not None and shown and np.isfinite(output.evidence[row, 0]).all():
        placement = item.placements[spec.preprocess]
        heatmap = to_heatmap(output.evidence[row, 0], spec.preprocess, placement)
    return decide(region, str(spec.target), probability, point, heatmap)


def _route(region: Stage, batch: Batch) -> list[RegionCall | None]:
    """A routing decision for each row; None where the network gave something unusable."""
    output = region.look(batch)
    thresholds = region.spec.route_thresholds
    return [
        route(dict(zip(output.labels, row.tolist(), strict=True)), thresholds)
        if np.isfinite(row).all()
        else None
        for row in output.probabilities
    ]


def _outcome(
    item: _Prepared,
    call: RegionCall | None,
    found: tuple[FractureCall, ...],
    fault: str | None,
    share_ms: float,
    weights: Weights,
) -> Outcome:
    """Put together what is known about one picture."""
    error = fault or refusal(call, weights.fracture)
    status = Status.OK
    if error is not None:
        status = Status.UNSUPPORTED if fault is None else Status.FAILED
        found = ()
    routers = [] if weights.region is None else [weights.region]
    spoke = [*routers, *(weights.fracture[finding.region] for finding in found)]
    return Outcome(
        image=item.image,
        status=status,
        region=call,
        findings=found,
        error=error,
        elapsed_ms=item.elapsed_ms + share_ms,
        bundle_digests=weights.digests(spoke),
        header=item.header,
        flags=item.flags + reconcile(item.header, call.fired if call else None),
        study=item.study,
        identity=item.identity,
        rendered=item.rendered,
    )


def _since(started: float) -> float:
    """Milliseconds since a ``time.perf_counter`` reading."""
    return (time.perf_counter() - started) * 1000.0
