"""One pass of the bundles as shipped over rows of the table: every answer of every network.

``fxpipe run`` asks a specialist only about pictures that are routed to it. Here all of them are
asked about all pictures: what a specialist would have said of a picture that went elsewhere is
what a misroute costs. The decisions are those of :mod:`pipeline.decision`, on the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.config import RunConfig
from pipeline.decision import combine, decide, examiners, refusal, route, unjudged
from pipeline.domain import (
    ANY_REGION,
    REGIONS,
    Array,
    FractureCall,
    Placement,
    RegionCall,
    StageOutput,
    Status,
    XrayImage,
)
from pipeline.errors import ImageError, UnreadableImageError, UnsupportedError
from pipeline.flags import quality
from pipeline.heatmap import on_limb, peak, to_heatmap
from pipeline.in_order import in_order
from pipeline.io import decode, read_file
from pipeline.io.body_parts import body_part
from pipeline.preprocess import PreprocessSpec, preprocess
from pipeline.progress import Progress
from pipeline.report.record import path_text, plain
from pipeline.runtime.network import Batch, Stage
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
        arrays: (1, H, W) float32 for each preprocessing; empty when it could not be read.
        placements: Where the picture lies on each of them.
        shape: (H, W) of the source in px.
        limb: Where in the picture the limb is; None when it could not be read, or nobody asks.
        fingerprint: (D,) float32; None when it could not be read, or was changed.
        error: What went wrong.
        header: See :class:`pipeline.domain.XrayImage`.
        unjudged: See :func:`pipeline.decision.unjudged`.
    """

    sample: Sample
    arrays: Mapping[PreprocessSpec, Array]
    placements: Mapping[PreprocessSpec, Placement]
    shape: tuple[int, int] | None
    limb: Mask | None
    fingerprint: Array | None
    error: ImageError | None
    header: Mapping[str, str] | None = None
    unjudged: str | None = None


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
    specs = weights.preprocessings
    rows: list[dict[str, Any]] = []
    prints: list[Array | None] = []
    items = _read_ahead(samples, specs, config, change)
    batches = iter(lambda: list(islice(items, config.batch_size)), [])
    tasks = (partial(_answer, batch, weights, config) for batch in batches)
    for batch, answers in in_order(tasks, config.lanes, 2 * config.lanes, "fxpipe-lane"):
        for item, answer in zip(batch, answers, strict=True):
            rows.append(_described(item.sample, root) | answer)
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
    prints = []
    for item in _read_ahead(samples, (), config):
        prints.append(item.fingerprint)
        progress.advance()
    return prints


def _read_ahead(
    samples: Iterable[Sample], specs: Sequence[PreprocessSpec], config: RunConfig,
    change: Change | None = None,
) -> Iterator[_Read]:  # fmt: skip
    """Read on worker threads, a bounded number of files ahead of the consumer, in order."""
    tasks = (partial(_read, sample, specs, change) for sample in samples)
    return in_order(tasks, config.reader_threads, 2 * config.reader_threads, "fxpipe-read")


def _answer(
    batch: list[_Read], weights: Weights, config: RunConfig
) -> tuple[list[_Read], list[dict[str, Any]]]:
    """What the networks say of the readable pictures, and why there is nothing of the others."""
    readable = [item for item in batch if item.error is None]
    answers = iter(_ask(readable, weights, config) if readable else ())
    return batch, [_failed(item.error) if item.error else next(answers) for item in batch]


def _read(sample: Sample, specs: Sequence[PreprocessSpec], change: Change | None) -> _Read:
    try:
        content, digest = read_file(sample.path)
        image = next(decode(content, sample.path, digest), None)
        if image is None:
            raise UnreadableImageError(f"{sample.path.name}: found a file without a picture")
    except ImageError as error:
        return _Read(sample, {}, {}, None, None, None, error)
    pixels, look = image.pixels, None
    if change is None:
        look = fingerprint(pixels)
    else:
        pixels, boxes = change(image, sample.boxes)
        sample = replace(sample, boxes=boxes)
    placed = {spec: preprocess(pixels, spec) for spec in specs}
    arrays = {spec: array for spec, (array, _) in placed.items()}
    placements = {spec: placement for spec, (_, placement) in placed.items()}
    shape = (pixels.shape[0], pixels.shape[1])
    limb = tissue(pixels) if specs and change is None else None
    blank = unjudged(quality(pixels)) if specs else None
    return _Read(sample, arrays, placements, shape, limb, look, None, image.dicom, blank)


def _ask(items: Sequence[_Read], weights: Weights, config: RunConfig) -> Iterator[dict[str, Any]]:
    """What every network says of each picture of a batch, and what follows from it."""
    batch = Batch([item.arrays for item in items], weights.trunks)
    routing = None if weights.region is None else weights.region.look(batch)
    answers = {
        region: stage.look(batch, evidence=True) for region, stage in weights.fracture.items()
    }
    for i, item in enumerate(items):
        row: dict[str, Any] = {}
        if item.shape:
            row["height_px"], row["width_px"] = item.shape
        row |= {} if routing is None else _routed(i, routing, weights)
        for region in (*REGIONS, ANY_REGION):
            # Who looks where only this region fires, whoever did.
            name = region if region in answers else ANY_REGION
            if name in answers:
                said = _spoken(i, item, answers[name], weights.fracture[name])
                far = _is_far(row)
                point = weights.point(name, far)
                said |= {"threshold": point.threshold, "doubt_below": point.doubt_below}
                if name in weights.study_points:
                    of_study = weights.study_points[name].threshold
                    said["study_threshold"] = max(of_study, point.threshold) if far else of_study
                row |= {f"{key}_{region}": value for key, value in said.items()}
        row["header_says"] = body_part(item.header).said
        decided = _decided(row, item.header, weights, config)
        if item.unjudged:
            decided = {"status": Status.UNSUPPORTED.value, "error": item.unjudged}
        yield row | decided


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


def _is_far(row: Mapping[str, Any]) -> bool:
    """Whether the picture of a row is far from the training pictures."""
    return "density_far" in row and bool(row["density"] < row["density_far"])


def _spoken(i: int, item: _Read, answer: StageOutput, stage: Stage) -> dict[str, float]:
    """What a specialist says of picture ``i``."""
    said = {
        "fracture": float(answer.probabilities[i, 0]),
        "fracture_logit": float(answer.logits[i, 0]),
    }
    if answer.evidence is None:
        return said
    canvas = stage.spec.preprocess
    return said | _pointed(answer.evidence[i, 0], canvas, item.placements[canvas], item.limb)


def _decided(
    row: Mapping[str, Any],
    header: Mapping[str, str] | None,
    weights: Weights,
    config: RunConfig,
) -> dict[str, Any]:
    """Status, regions that fired and verdicts, as :func:`pipeline.orchestrator.run` has them."""
    call: RegionCall | None = None
    fired: dict[str, Any] = {}
    if weights.region is not None:
        probabilities = {region: row[f"p_{region}"] for region in weights.region.spec.labels}
        density = row.get("density")
        told = [*probabilities.values(), *([] if density is None else [density])]
        if not np.isfinite(told).all():
            error = "the region stage gave no number for it"
            return {"status": Status.FAILED.value, "error": error}
        thresholds = weights.region.spec.route_thresholds
        alone = route(
            probabilities, thresholds, density, row.get("density_threshold"), row.get("density_far")
        )
        call = combine(alone, header, config.header, config.header_margin)
        fired = {
            "fired_alone": ";".join(alone.fired),
            "header_effect": call.header_effect.value,
            "fired": ";".join(call.fired),
        }
    looking = examiners(call, weights.fracture)
    findings: list[FractureCall] = []
    fault = None
    for region, stage in weights.fracture.items():
        if region not in looking:
            continue
        p = row[f"fracture_{region}"]
        if np.isfinite(p):
            far = call is not None and call.far
            point = weights.point(region, far)
            findings.append(decide(region, str(stage.spec.target), p, point, far=far))
        else:
            fault = f"the {region} specialist gave no number for it"
    if fault is not None:
        return fired | {"status": Status.FAILED.value, "error": fault}
    refused = refusal(call, weights.fracture)
    if refused is not None:
        return fired | {"status": Status.UNSUPPORTED.value, "error": refused}
    verdicts = {f"verdict_{finding.region}": finding.verdict.value for finding in findings}
    return fired | {"status": Status.OK.value, **verdicts}


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


def _failed(error: ImageError) -> dict[str, Any]:
    unsupported = isinstance(error, UnsupportedError)
    status = Status.UNSUPPORTED if unsupported else Status.FAILED
    return {"status": status.value, "error": plain(str(error))}


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
