"""One pass of the bundles as shipped over rows of the table: every answer of every network.

``fxpipe run`` asks a specialist only about pictures that are routed to it. Here all of them are
asked about all pictures: what a specialist would have said of a picture that went elsewhere is
what a misroute costs. Pictures are prepared and judged by :mod:`pipeline.judge`, as in a run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.config import RunConfig
from pipeline.domain import (
    ANY_REGION,
    REGIONS,
    Array,
    Outcome,
    Placement,
    StageOutput,
    XrayImage,
)
from pipeline.errors import ImageError, UnreadableImageError, UnsupportedError
from pipeline.flow import Flow
from pipeline.heatmap import on_limb, peak, to_heatmap
from pipeline.in_order import in_order
from pipeline.io import decode, read_file
from pipeline.io.body_parts import body_part
from pipeline.judge import Judge
from pipeline.preprocess import PreprocessSpec
from pipeline.progress import Progress
from pipeline.reading.here import prepared
from pipeline.reading.prepared import Item, Prepared, ReadOptions, unread
from pipeline.report.record import path_text, plain
from pipeline.runtime.session import Weights
from pipeline.tissue import Mask, tissue

from ..data.index import Box, Sample
from ..data.likeness import fingerprint

SPOKEN = (
    *("fracture", "fracture_logit", "threshold", "doubt_below", "study_threshold"),
    *("peak_x", "peak_y", "cell_x", "cell_y", "off_limb", "hidden"),
)
"""Beginnings of the columns of a specialist."""

TEXTS = (
    *("path", "split", "group", "study", "origin", "flags", "regions", "label_kind", "sha256"),
    *("boxes", "status", "error", "header_says", "fired_alone", "header_effect", "fired"),
    *(f"verdict_{region}" for region in REGIONS),
)
"""Columns of text: the row of the table, then what became of it. ``header_says`` are the words of
a DICOM header about the body part, ``fired_alone`` the regions that fire by the pixels alone, and
``fired`` those that fire after :func:`pipeline.decision.combine`."""

NUMBERS = (
    *("label", *(f"view_{region}" for region in REGIONS), "width_px", "height_px"),
    *(f"{name}_{region}" for region in REGIONS for name in ("p", "logit", "route_threshold")),
    *("density", "density_threshold", "density_far"),
    *(f"{name}_{region}" for region in REGIONS for name in SPOKEN),
)
"""Columns of numbers, NaN where unknown: truth, size, then routing (``p``: calibrated; nothing
without a region stage; ``density_threshold``: nothing where the gate is off; ``density_far``:
nothing where far pictures are judged like near ones) and what the
specialist that looks at pictures of the region says (``fracture``: calibrated, ``peak``: where its
map is highest, as fractions of the picture's width and height, outside [0, 1] for a peak in the
padding; ``cell``: size of a cell of the map in the same fractions; ``off_limb``: 1 where the map is
highest off the limb, else 0, and ``hidden``: the share of its evidence that lies there; a reader is
shown neither, and ``peak`` is that of what is shown; ``study_threshold``: for whole studies, if
there is one). A specialist for all regions has columns of its own too: :data:`SPOKEN` and
``verdict``, each ending in ``_all``; a verdict stands only there."""

VERDICT_OF_ALL = f"verdict_{ANY_REGION}"

ADDED_TEXTS = ("category", "refusal", "pointing_region", "twin", "labelled_twin", "shift")
"""Columns of text that :mod:`.truth`, :mod:`.baselines` and :mod:`.under_shift` add; all others
they add are numbers."""

Change = Callable[[XrayImage, tuple[Box, ...]], tuple[Array, tuple[Box, ...]]]
"""A picture and its fracture boxes (fractions) to (H, W) float32 in [0, 1] and where they are."""


@dataclass(frozen=True, slots=True)
class _Read:
    """One file, read.

    Attributes:
        sample: Its row of the table.
        item: The picture as a run has it, or the outcome of one that cannot be read.
        shape: (H, W) of the source in px; None when it could not be read.
        limb: Where in the picture the limb is; None when it could not be read, or was changed.
        fingerprint: (D,) float32; likewise.
    """

    sample: Sample
    item: Item
    shape: tuple[int, int] | None = None
    limb: Mask | None = None
    fingerprint: Array | None = None


Row = dict[str, Any]


def predict(
    samples: Sequence[Sample], root: Path, weights: Weights, config: RunConfig, progress: Progress,
    change: Change | None = None,
) -> tuple[pd.DataFrame, list[Array | None]]:  # fmt: skip
    """Ask every network about every picture.

    Args:
        samples: Rows of the table; of a file with several pictures the first is taken.
        root: Folder of the table; paths are told relative to it.
        weights: Opened bundles.
        config: Batch size and number of worker threads.
        progress: Advanced once a row.
        change: Of every source picture, before preprocessing.

    Returns:
        One row for each sample, in their order, with the columns :data:`TEXTS` and
        :data:`NUMBERS`, and those of a specialist for all regions if there is one; and the
        fingerprint of each picture, None where it could not be read or was changed.

    Raises:
        DeviceError: The device gave up.
    """
    judge, wanted = Judge(weights, config), ReadOptions(weights.preprocessings)
    rows: list[Row] = []
    prints: list[Array | None] = []

    def read(sample: Sample) -> list[_Read]:
        return [_read(sample, wanted, change)]

    def answer(items: Sequence[_Read]) -> list[tuple[_Read, Row]]:
        return list(zip(items, _answers(items, judge, weights), strict=True))

    flow = Flow(read, answer, judge.limits)
    with closing(flow.results(samples)) as results:
        for item, answers in results:
            rows.append(_described(item.sample, root) | answers)
            prints.append(item.fingerprint)
            progress.advance()
    for_all = ANY_REGION in weights.fracture
    text_names = (*TEXTS, VERDICT_OF_ALL) if for_all else TEXTS
    added = [f"{name}_{ANY_REGION}" for name in SPOKEN] if for_all else []
    texts = {name: [row.get(name, "") for row in rows] for name in text_names}
    numbers = {
        name: np.array([row.get(name) for row in rows], np.float64) for name in (*NUMBERS, *added)
    }
    return pd.DataFrame(texts | numbers), prints


def read_fingerprints(
    samples: Iterable[Sample], config: RunConfig, progress: Progress
) -> list[Array | None]:
    """The fingerprint of each sample's picture; None for one that cannot be read."""
    tasks = (partial(_fingerprint, sample) for sample in samples)
    threads = config.reader_threads
    prints = []
    with closing(in_order(tasks, threads, 2 * threads, "fxpipe-read")) as found:
        for look in found:
            prints.append(look)
            progress.advance()
    return prints


def _fingerprint(sample: Sample) -> Array | None:
    try:
        return fingerprint(_first_picture(sample)[0].pixels)
    except ImageError:
        return None


def _first_picture(sample: Sample) -> tuple[XrayImage, str]:
    """The picture of a file, the first if there are several, and the digest of the file.

    Raises:
        ImageError: It cannot be read.
    """
    content, digest = read_file(sample.path)
    image = next(decode(content, sample.path, digest), None)
    if image is None:
        raise UnreadableImageError(f"{sample.path.name}: found a file without a picture")
    return image, digest


def _read(sample: Sample, wanted: ReadOptions, change: Change | None) -> _Read:
    started = time.perf_counter()
    try:
        image, _ = _first_picture(sample)
    except ImageError as error:
        unsupported = isinstance(error, UnsupportedError)
        return _Read(
            sample, unread(sample.path, None, None, str(error), 0.0, unsupported=unsupported)
        )
    look = limb = None
    if change is None:
        look = fingerprint(image.pixels)
        limb = tissue(image.pixels)
    else:
        pixels, boxes = change(image, sample.boxes)
        image, sample = replace(image, pixels=pixels), replace(sample, boxes=boxes)
    height, width = image.pixels.shape
    return _Read(sample, prepared(image, wanted, started), (height, width), limb, look)


def _answers(items: Sequence[_Read], judge: Judge, weights: Weights) -> list[Row]:
    """What the networks say of the readable pictures of a batch, and how each one ends."""
    readable = [item for item in items if isinstance(item.item, Prepared)]
    answers = iter(_ask(readable, judge, weights) if readable else ())
    return [_ended(x.item) if isinstance(x.item, Outcome) else next(answers) for x in items]


def _ask(items: Sequence[_Read], judge: Judge, weights: Weights) -> Iterator[Row]:
    """What every network says of each picture of a batch, and what follows from it."""
    pictures = [item.item for item in items if isinstance(item.item, Prepared)]
    look = judge.look(pictures, all_specialists=True)
    outcomes = judge.conclude(pictures, look)
    for i, (item, picture, outcome) in enumerate(zip(items, pictures, outcomes, strict=True)):
        row: Row = {}
        if item.shape:
            row["height_px"], row["width_px"] = item.shape
        row |= {} if look.routing is None else _routed(i, look.routing, weights)
        for region in (*REGIONS, ANY_REGION):
            # Who looks where only this region fires, whoever did.
            name = region if region in look.answers else ANY_REGION
            if name in look.answers:
                canvas = weights.fracture[name].spec.preprocess
                said = _spoken(i, look.answers[name], canvas, picture.placements[canvas], item.limb)
                far = _is_far(row)
                point = weights.point(name, far)
                said |= {"threshold": point.threshold, "doubt_below": point.doubt_below}
                if name in weights.study_points:
                    of_study = weights.study_points[name].threshold
                    said["study_threshold"] = max(of_study, point.threshold) if far else of_study
                row |= {f"{key}_{region}": value for key, value in said.items()}
        row["header_says"] = body_part(picture.header).said
        alone = look.pixel_calls[i]
        if outcome.region is not None and alone is not None:
            row["fired_alone"] = ";".join(alone.fired)
            row["header_effect"] = outcome.region.header_effect.value
            row["fired"] = ";".join(outcome.region.fired)
        yield row | _ended(outcome)


def _ended(outcome: Outcome) -> Row:
    """Status, reason and verdicts."""
    verdicts = {f"verdict_{finding.region}": finding.verdict.value for finding in outcome.findings}
    return {"status": outcome.status.value, "error": plain(outcome.error or ""), **verdicts}


def _routed(i: int, routing: StageOutput, weights: Weights) -> dict[str, float]:
    """What the region stage says of picture ``i``."""
    thresholds = weights.region.spec.route_thresholds if weights.region else {}
    row = {}
    for k, region in enumerate(routing.labels):
        row[f"p_{region}"] = float(routing.probabilities[i, k])
        row[f"logit_{region}"] = float(routing.logits[i, k])
        row[f"route_threshold_{region}"] = thresholds[region]
    if routing.density is not None:
        row["density"] = float(routing.density[i])
    if weights.gate is not None:
        row["density_threshold"] = weights.gate.threshold
    if weights.far is not None:
        row["density_far"] = weights.far
    return row


def _is_far(row: Row) -> bool:
    """Whether the picture of a row is far from the training pictures."""
    return "density_far" in row and bool(row["density"] < row["density_far"])


def _spoken(
    i: int, answer: StageOutput, canvas: PreprocessSpec, placement: Placement, limb: Mask | None
) -> dict[str, float]:
    """What a specialist says of picture ``i``."""
    said = {
        "fracture": float(answer.probabilities[i, 0]),
        "fracture_logit": float(answer.logits[i, 0]),
    }
    if answer.evidence is None:
        return said
    return said | _pointed(answer.evidence[i, 0], canvas, placement, limb)


def _pointed(
    evidence: Array, spec: PreprocessSpec, placement: Placement, limb: Mask | None
) -> dict[str, float]:
    """Where the map that is shown is highest, how large a cell is, and what is not shown.

    In fractions of the picture, and of the evidence.
    """
    canvas_px = spec.height_px, spec.width_px
    shown = to_heatmap(evidence, spec, placement, limb)
    off_limb = False
    if limb is not None:
        on = on_limb(limb, evidence.shape, canvas_px, placement)
        off_limb = not on.flat[int(evidence.argmax())]
    # Where nothing is shown at all, the place that the network means counts, as a miss.
    cells = shown.cells if shown.cells.any() else evidence
    (y_px, x_px), (cell_height_px, cell_width_px) = peak(cells, canvas_px, placement)
    height, width = placement.source_shape
    return {
        "peak_x": x_px / width,
        "peak_y": y_px / height,
        "cell_x": cell_width_px / width,
        "cell_y": cell_height_px / height,
        "off_limb": float(off_limb) if evidence.max() > 0.0 else float("nan"),
        "hidden": shown.hidden,
    }


def _described(sample: Sample, root: Path) -> dict[str, Any]:
    """The row of the table."""
    view = sample.region_vector().tolist()
    return {
        **{name: getattr(sample, name) for name in TEXTS if hasattr(sample, name)},
        "path": path_text(sample.path, root),
        "boxes": ";".join(" ".join(map(repr, box)) for box in sample.boxes),
        "label": sample.label,
        **{f"view_{region}": seen for region, seen in zip(REGIONS, view, strict=True)},
    }


def write_predictions(table: pd.DataFrame, target: Path) -> None:
    """Write every row with every digit, in one step; a column of whole numbers without points."""
    shown = table.copy()
    for name in table.columns:
        if table[name].dtype == np.float64 and (table[name].dropna() % 1 == 0).all():
            shown[name] = table[name].astype("Int64")
    partial = target.with_name(target.name + ".partial")
    shown.to_csv(partial, index=False, lineterminator="\n")
    partial.replace(target)


def read_predictions(source: Path) -> pd.DataFrame:
    """The table as :func:`write_predictions` was given it, to the last digit."""
    table = pd.read_csv(source, dtype=str, keep_default_na=False)
    for name in table.columns:
        if name not in {*TEXTS, VERDICT_OF_ALL, *ADDED_TEXTS}:
            table[name] = [float(value) if value else np.nan for value in table[name]]
    return table
