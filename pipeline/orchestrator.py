"""Read → trunk → route → fracture: batches across files, order kept, memory constant.

Reader threads have files read and resized ahead of the networks, by workers that may die of one
(:mod:`pipeline.reading`); lanes, threads too, take whole batches through the networks; the caller
gets the outcomes in order. What one picture does wrong becomes its own failed outcome; what the
device or the weights do wrong ends the run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from .clock import Clock
from .config import RunConfig
from .decision import combine, decide, examiners, refusal, route, unjudged
from .domain import (
    FractureCall,
    Heatmap,
    Outcome,
    RegionCall,
    StageOutput,
    Status,
    Verdict,
)
from .flags import reconcile, routing
from .heatmap import to_heatmap
from .in_order import in_order
from .reading.opened import open_reader
from .reading.prepared import Item, Prepared, Reader, Wanted
from .runtime.network import Batch, Stage
from .runtime.session import Weights
from .tissue import tissue


@dataclass(frozen=True, slots=True)
class _Job:
    """What is the same for every picture of a run."""

    weights: Weights
    config: RunConfig
    reader: Reader
    wanted: Wanted
    clock: Clock
    study_of: StudyOf | None


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
    reader: Reader | None = None,
) -> Iterator[Outcome]:
    """Yield an outcome for every picture of every file, in the order of ``paths``.

    Args:
        paths: Files; read lazily, so any number of them.
        weights: Opened bundles.
        config: Batch size, numbers of threads, heatmaps and identifiers.
        clock: Told how long the threads read, decode, resize, and run trunk and heads.
        rendered: Whether outcomes carry the picture, for reports.
        study_of: Tells the study of a file; None where that is of no interest.
        reader: See :func:`pipeline.reading.opened.open_reader`; None to open one for this run.

    Yields:
        One outcome for a file, or one for each frame of a multi-frame file. When frame k of a
        file cannot be read, the frames before it keep their outcomes and frame k gets a failed
        one. So does one whose decoder crashes, hangs or takes too much memory.

    Raises:
        DeviceError: The device gave up in the middle of the run.
        StartError: No worker can be started.
    """
    identity = config.identifiers == "keep" or study_of is not None
    wanted = Wanted(weights.preprocessings, identity, rendered)
    # Closed explicitly: a consumer that stops early leaves no thread at work, and no worker.
    with ExitStack() as stack:
        reader = reader or stack.enter_context(open_reader(config))
        job = _Job(weights, config, reader, wanted, clock or Clock(), study_of)
        items = stack.enter_context(closing(_read_ahead(paths, job)))
        # Left early, first of all: no thread shall wait for a worker.
        stack.push(lambda kind, *_: reader.stop() if kind else None)
        tasks = (partial(_flush, batch, job) for batch in _batches(items, config))
        lanes = in_order(tasks, config.lanes, 2 * config.lanes, "fxpipe-lane")
        with closing(lanes) as flushed:
            for outcomes in flushed:
                yield from outcomes


def _batches(items: Iterable[Item], config: RunConfig) -> Iterator[list[Item]]:
    """Items in groups with a batch of readable pictures each, and what failed between them."""
    # The bound on waiting items keeps memory constant where bad files are many and good ones
    # too few to fill a batch.
    most_waiting = 8 * config.batch_size
    waiting: list[Item] = []
    ready = 0
    for item in items:
        waiting.append(item)
        ready += isinstance(item, Prepared)
        if ready in (0, config.batch_size) or len(waiting) >= most_waiting:
            yield waiting
            waiting, ready = [], 0
    yield waiting


def _read_ahead(paths: Iterable[Path], job: _Job) -> Generator[Item, None, None]:
    """Prepare files on reader threads, a bounded number ahead of the consumer, in order."""
    tasks = (partial(job.reader.read, path, job.wanted, job.clock) for path in paths)
    threads = job.config.reader_threads
    ahead = max(2 * job.config.batch_size, 2 * threads)
    with closing(in_order(tasks, threads, ahead, "fxpipe-read")) as prepared:
        for items in prepared:
            yield from (_of_study(item, job) for item in items)


def _of_study(item: Item, job: _Job) -> Item:
    """The item with its study; identifiers go no further unless they are kept."""
    uid = (item.identity or {}).get("StudyInstanceUID") or None
    study = job.study_of(item.image.path, uid) if job.study_of else None
    if isinstance(item, Outcome) and item.status is Status.UNSUPPORTED:
        study = None  # a document or a CT slice is no picture that the study has lost
    kept = isinstance(item, Prepared) and job.config.identifiers == "keep"
    return replace(item, identity=item.identity if kept else None, study=study)


def _flush(items: Sequence[Item], job: _Job) -> list[Outcome]:
    """Run one batch and put its outcomes back between those that were failed already."""
    prepared = [item for item in items if isinstance(item, Prepared)]
    outcomes: Iterator[Outcome] = iter(())
    if prepared:
        with job.clock.measure("heads"):
            outcomes = iter(_judge(prepared, job))
    return [next(outcomes) if isinstance(item, Prepared) else item for item in items]


def _judge(prepared: Sequence[Prepared], job: _Job) -> list[Outcome]:
    """Route every picture of a batch, then let each specialist look at its own rows."""
    started = time.perf_counter()
    weights = job.weights
    batch = Batch([item.arrays for item in prepared], weights.trunks, job.clock)
    calls: list[RegionCall | None] = [None] * len(prepared)
    faults: list[str | None] = [None] * len(prepared)
    if weights.region is not None:
        calls = [
            call and combine(call, item.header, job.config.header, job.config.header_margin)
            for call, item in zip(_route(weights.region, batch, weights), prepared, strict=True)
        ]
        faults = [None if call else "the region stage gave no number for it" for call in calls]
    looking = [
        examiners(call, weights.fracture) if fault is None and not unjudged(item.flags) else ()
        for item, call, fault in zip(prepared, calls, faults, strict=True)
    ]
    findings: list[list[FractureCall]] = [[] for _ in prepared]
    for region, specialist in weights.fracture.items():
        rows = [i for i, names in enumerate(looking) if region in names]
        if not rows:
            continue
        output = specialist.look(batch, rows, evidence=job.config.shown_heatmaps != "none")
        for row, i in enumerate(rows):
            call = calls[i]
            far = call is not None and call.far
            finding = _finding(row, output, region, prepared[i], far, job)
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
    row: int, output: StageOutput, region: str, item: Prepared, far: bool, job: _Job
) -> FractureCall | None:
    """What a specialist says of one of its rows; None where it gave something unusable."""
    probability = float(output.probabilities[row, 0])
    if not np.isfinite(probability):
        return None
    spec, point = job.weights.fracture[region].spec, job.weights.point(region, far)
    heatmap: Heatmap | None = None
    shown = job.config.shown_heatmaps == "all" or point.verdict(probability) is not Verdict.NEGATIVE
    if output.evidence is not None and shown and np.isfinite(output.evidence[row, 0]).all():
        placement = item.placements[spec.preprocess]
        limb = None if item.rendered is None else tissue(item.rendered.pixels)
        heatmap = to_heatmap(output.evidence[row, 0], spec.preprocess, placement, limb)
    return decide(region, str(spec.target), probability, point, heatmap, far)


def _route(region: Stage, batch: Batch, weights: Weights) -> list[RegionCall | None]:
    """A routing decision for each row; None where the network gave something unusable."""
    output = region.look(batch)
    thresholds = region.spec.route_thresholds
    wanted = None if weights.gate is None else weights.gate.threshold
    densities = [None] * len(output) if output.density is None else output.density.tolist()
    calls: list[RegionCall | None] = []
    for row, density in zip(output.probabilities, densities, strict=True):
        usable = np.isfinite(row).all() and (density is None or np.isfinite(density))
        probabilities = dict(zip(output.labels, row.tolist(), strict=True))
        calls.append(
            route(probabilities, thresholds, density, wanted, weights.far) if usable else None
        )
    return calls


def _outcome(
    item: Prepared,
    call: RegionCall | None,
    found: tuple[FractureCall, ...],
    fault: str | None,
    share_ms: float,
    weights: Weights,
) -> Outcome:
    """Put together what is known about one picture."""
    blank = unjudged(item.flags)
    if blank is not None:  # then what the router says means nothing either
        call, fault = None, None
    error = blank or fault or refusal(call, weights.fracture)
    status = Status.OK
    if error is not None:
        status = Status.UNSUPPORTED if fault is None else Status.FAILED
        found = ()
    seen = None if call is None else call.found if call.veto else call.fired
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
        flags=item.flags + reconcile(item.header, seen) + (routing(call) if found else ()),
        study=item.study,
        identity=item.identity,
        rendered=item.rendered,
    )


def _since(started: float) -> float:
    """Milliseconds since a ``time.perf_counter`` reading."""
    return (time.perf_counter() - started) * 1000.0
