"""Predictions of all networks of a set of bundles on rows of the table.

``fxpipe run`` applies a specialist only to pictures that are routed to it. Here every specialist
judges every picture, so that the cost of wrong routing can be measured. Pictures are prepared and
judged by :mod:`pipeline.judge`, as in a run.
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

from pipeline.atomic import write_atomic
from pipeline.config import RunConfig
from pipeline.domain import ANY_REGION, REGIONS, Array, Placement, StageOutput, XrayImage
from pipeline.errors import ImageError, UnreadableImageError, UnsupportedError
from pipeline.heatmap import on_limb, peak, to_heatmap
from pipeline.io import decode, read_file
from pipeline.io.body_parts import body_part
from pipeline.judge import Judge
from pipeline.ordered_pool import in_order
from pipeline.outcome import Outcome
from pipeline.preprocess import PreprocessSpec
from pipeline.progress import Progress
from pipeline.reading.in_process import prepared
from pipeline.reading.prepared_picture import Item, Prepared, ReadOptions, unread
from pipeline.report.record import path_text, plain
from pipeline.runtime.session import Weights
from pipeline.threaded_pipeline import Flow
from pipeline.tissue import Mask, tissue

from ..data.near_duplicates import fingerprint
from ..samples import Box, Sample

SPECIALIST_COLUMNS = (
    *("fracture", "fracture_logit", "threshold", "doubt_below", "study_threshold"),
    *("peak_x", "peak_y", "cell_x", "cell_y", "off_limb", "hidden"),
)
"""Prefixes of the columns of a specialist."""

TEXTS = (
    *("path", "split", "group", "study", "origin", "flags", "regions", "label_kind", "sha256"),
    *("boxes", "status", "error", "header_says", "fired_alone", "header_effect", "fired"),
    *(f"verdict_{region}" for region in REGIONS),
)
"""Columns of text: the row of the table, then the outcome. ``header_says`` is the body part in the
DICOM header, ``fired_alone`` the regions that fire by the pixels alone, and ``fired`` those that
fire after :func:`pipeline.decision.combine`."""

NUMBERS = (
    *("label", *(f"view_{region}" for region in REGIONS), "width_px", "height_px"),
    *(f"{name}_{region}" for region in REGIONS for name in ("p", "logit", "route_threshold")),
    *("density", "density_threshold", "density_far"),
    *(f"{name}_{region}" for region in REGIONS for name in SPECIALIST_COLUMNS),
)
"""Columns of numbers, NaN where unknown: truth, size, then routing and the specialists.

Routing: ``p`` is calibrated, and NaN without a region stage; ``density_threshold`` is NaN if the
gate is off, ``density_far`` if far pictures are judged like near ones.

Specialist for the region: ``fracture`` is calibrated; ``peak`` is the position of the displayed
map's highest cell, as fractions of the picture's width and height, outside [0, 1] for a peak in
the padding; ``cell`` is the size of a cell in the same fractions; ``off_limb`` is 1 if the map
peaks off the limb, else 0; ``hidden`` is the share of the evidence off the limb, which is not
displayed; ``study_threshold`` is the threshold for whole studies, if there is one.

A specialist for all regions has additional columns: :data:`SPECIALIST_COLUMNS` and ``verdict``,
each with the suffix ``_all``; its verdict is only in that column."""

VERDICT_OF_ALL = f"verdict_{ANY_REGION}"

ADDED_TEXTS = ("category", "refusal", "pointing_region", "twin", "labelled_twin", "shift")
"""Columns of text that :mod:`.truth`, :mod:`.baselines` and :mod:`.under_shift` add; all others
that they add are numbers."""

Change = Callable[[XrayImage, tuple[Box, ...]], tuple[Array, tuple[Box, ...]]]
"""Maps a picture and its fracture boxes (fractions) to (H, W) float32 in [0, 1] and its boxes."""


@dataclass(frozen=True, slots=True)
class _Read:
    """One file after reading.

    Attributes:
        sample: Its row of the table.
        item: The prepared picture, or the outcome if it cannot be read.
        shape: (H, W) of the source in px; None if it cannot be read.
        limb: Mask of the limb; None if the picture cannot be read or was changed.
        fingerprint: (D,) float32; None if the picture cannot be read or was changed.
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
    """Apply every network to every picture.

    Args:
        samples: Rows of the table; if a file has several pictures, the first is used.
        root: Folder of the table; paths in the result are relative to it.
        weights: Opened bundles.
        config: Batch size and number of worker threads.
        progress: Advanced once per row.
        change: Applied to every source picture before preprocessing.

    Returns:
        One row per sample, in order, with the columns :data:`TEXTS` and :data:`NUMBERS`, and
        those of a specialist for all regions if there is one; and the fingerprint of each
        picture, None if it cannot be read or was changed.

    Raises:
        DeviceError: Inference on the device failed.
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
            rows.append(_table_row(item.sample, root) | answers)
            prints.append(item.fingerprint)
            progress.advance()
    for_all = ANY_REGION in weights.fracture
    text_names = (*TEXTS, VERDICT_OF_ALL) if for_all else TEXTS
    added = [f"{name}_{ANY_REGION}" for name in SPECIALIST_COLUMNS] if for_all else []
    texts = {name: [row.get(name, "") for row in rows] for name in text_names}
    numbers = {
        name: np.array([row.get(name) for row in rows], np.float64) for name in (*NUMBERS, *added)
    }
    return pd.DataFrame(texts | numbers), prints


def read_fingerprints(
    samples: Iterable[Sample], config: RunConfig, progress: Progress
) -> list[Array | None]:
    """The fingerprint of each sample's picture; None if it cannot be read."""
    tasks = (partial(_fingerprint, sample) for sample in samples)
    threads = config.reader_threads
    prints = []
    with closing(in_order(tasks, threads, 2 * threads, "fxpipe-read")) as results:
        for result in results:
            prints.append(result)
            progress.advance()
    return prints


def _fingerprint(sample: Sample) -> Array | None:
    try:
        return fingerprint(_first_picture(sample)[0].pixels)
    except ImageError:
        return None


def _first_picture(sample: Sample) -> tuple[XrayImage, str]:
    """The first picture of a file, and the digest of the file.

    Raises:
        ImageError: The file cannot be read.
    """
    content, digest = read_file(sample.path)
    image = next(decode(content, sample.path, digest), None)
    if image is None:
        raise UnreadableImageError(f"{sample.path.name}: the file has no picture")
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
    mark = limb = None
    if change is None:
        mark = fingerprint(image.pixels)
        limb = tissue(image.pixels)
    else:
        pixels, boxes = change(image, sample.boxes)
        image, sample = replace(image, pixels=pixels), replace(sample, boxes=boxes)
    height, width = image.pixels.shape
    return _Read(sample, prepared(image, wanted, started), (height, width), limb, mark)


def _answers(items: Sequence[_Read], judge: Judge, weights: Weights) -> list[Row]:
    """One row per file of a batch: the predictions and the outcome."""
    readable = [item for item in items if isinstance(item.item, Prepared)]
    answers = iter(_predicted(readable, judge, weights) if readable else ())
    return [_outcome_row(x.item) if isinstance(x.item, Outcome) else next(answers) for x in items]


def _predicted(items: Sequence[_Read], judge: Judge, weights: Weights) -> Iterator[Row]:
    """Predictions of every network for each picture of a batch, and the outcome."""
    pictures = [item.item for item in items if isinstance(item.item, Prepared)]
    look = judge.look(pictures, all_specialists=True)
    outcomes = judge.conclude(pictures, look)
    for i, (item, picture, outcome) in enumerate(zip(items, pictures, outcomes, strict=True)):
        row: Row = {}
        if item.shape:
            row["height_px"], row["width_px"] = item.shape
        row |= {} if look.routing is None else _routing_row(i, look.routing, weights)
        for region in (*REGIONS, ANY_REGION):
            # The specialist that judges pictures in which only this region fires.
            name = region if region in look.answers else ANY_REGION
            if name in look.answers:
                canvas = weights.fracture[name].spec.preprocess
                values = _specialist_row(
                    i, look.answers[name], canvas, picture.placements[canvas], item.limb
                )
                far = _is_far(row)
                point = weights.point(name, far)
                values |= {"threshold": point.threshold, "doubt_below": point.doubt_below}
                if name in weights.study_points:
                    of_study = weights.study_points[name].threshold
                    values["study_threshold"] = max(of_study, point.threshold) if far else of_study
                row |= {f"{key}_{region}": value for key, value in values.items()}
        row["header_says"] = body_part(picture.header).said
        alone = look.pixel_calls[i]
        if outcome.region is not None and alone is not None:
            row["fired_alone"] = ";".join(alone.fired)
            row["header_effect"] = outcome.region.header_effect.value
            row["fired"] = ";".join(outcome.region.fired)
        yield row | _outcome_row(outcome)


def _outcome_row(outcome: Outcome) -> Row:
    """Status, reason and verdicts."""
    verdicts = {f"verdict_{finding.region}": finding.verdict.value for finding in outcome.findings}
    return {"status": outcome.status.value, "error": plain(outcome.error or ""), **verdicts}


def _routing_row(i: int, routing: StageOutput, weights: Weights) -> dict[str, float]:
    """Output of the region stage for picture ``i``."""
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
    """Whether the row's picture is far from the training pictures."""
    return "density_far" in row and bool(row["density"] < row["density_far"])


def _specialist_row(
    i: int, answer: StageOutput, canvas: PreprocessSpec, placement: Placement, limb: Mask | None
) -> dict[str, float]:
    """Output of a specialist for picture ``i``."""
    values = {
        "fracture": float(answer.probabilities[i, 0]),
        "fracture_logit": float(answer.logits[i, 0]),
    }
    if answer.evidence is None:
        return values
    return values | map_row(answer.evidence[i, 0], canvas, placement, limb)


def map_row(
    evidence: Array, spec: PreprocessSpec, placement: Placement, limb: Mask | None
) -> dict[str, float]:
    """Peak of the displayed map, size of its cells, and evidence off the limb.

    Args:
        evidence: (H, W) of the map's cells.
        spec: Preprocessing of the canvas.
        placement: Position of the picture on the canvas.
        limb: (H, W) of the canvas: the limb; None if it is not known.

    Returns:
        ``peak_x``, ``peak_y``, ``cell_x`` and ``cell_y`` as fractions of the picture's sides;
        ``off_limb``, 1 or 0, NaN without positive evidence; ``hidden``, the share of the evidence
        that is not displayed.
    """
    canvas_px = spec.height_px, spec.width_px
    heatmap = to_heatmap(evidence, spec, placement, limb)
    off_limb = False
    if limb is not None:
        on = on_limb(limb, evidence.shape, canvas_px, placement)
        off_limb = not on.flat[int(evidence.argmax())]
    # If the displayed map is empty, use the peak of the hidden evidence; it counts as a miss.
    cells = heatmap.cells if heatmap.cells.any() else evidence
    (y_px, x_px), (cell_height_px, cell_width_px) = peak(cells, canvas_px, placement)
    height, width = placement.source_shape
    return {
        "peak_x": x_px / width,
        "peak_y": y_px / height,
        "cell_x": cell_width_px / width,
        "cell_y": cell_height_px / height,
        "off_limb": float(off_limb) if evidence.max() > 0.0 else float("nan"),
        "hidden": heatmap.hidden,
    }


def _table_row(sample: Sample, root: Path) -> dict[str, Any]:
    """The row of the table."""
    view = sample.region_vector().tolist()
    return {
        **{name: getattr(sample, name) for name in TEXTS if hasattr(sample, name)},
        "path": path_text(sample.path, root),
        "boxes": ";".join(" ".join(map(repr, box)) for box in sample.boxes),
        "label": sample.label,
        **{f"view_{region}": in_view for region, in_view in zip(REGIONS, view, strict=True)},
    }


def write_predictions(table: pd.DataFrame, target: Path) -> None:
    """Write all rows in full precision, atomically; columns of whole numbers as integers."""
    formatted = table.copy()
    for name in table.columns:
        if table[name].dtype == np.float64 and (table[name].dropna() % 1 == 0).all():
            formatted[name] = table[name].astype("Int64")
    write_atomic(target, formatted.to_csv(index=False, lineterminator="\n").encode())


def read_predictions(source: Path) -> pd.DataFrame:
    """The table that :func:`write_predictions` wrote, without loss of precision."""
    table = pd.read_csv(source, dtype=str, keep_default_na=False)
    for name in table.columns:
        if name not in {*TEXTS, VERDICT_OF_ALL, *ADDED_TEXTS}:
            table[name] = [float(value) if value else np.nan for value in table[name]]
    return table
