"""Baselines: the majority class, and the label of the most similar training picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.config import RunConfig
from pipeline.domain import REGIONS, Array
from pipeline.progress import Progress
from pipeline.report.record import path_text

from ..data.near_duplicates import nearest
from ..samples import UNKNOWN, Index, Sample
from ..statistics.bootstrap import Numbers
from ..statistics.metrics import Cases
from .predictions import read_fingerprints


def majority(cases: Cases) -> Cases:
    """The same cases, predicted by the majority class.

    The probability is the share of positives; the call is the majority class (negative on a
    tie). This is the best prediction that ignores the pictures.
    """
    share = cases.labels.mean() if len(cases) else 0.0
    scores = np.full(len(cases), share)
    return Cases(cases.labels, scores, np.full(len(cases), share > 0.5), cases.groups)


def look_up(cases: Cases, twin_labels: Numbers) -> Cases:
    """The cases with a labelled twin, predicted by its label, with a probability of 0 or 1.

    Args:
        cases: N cases.
        twin_labels: (N,) 1, 0 or NaN.
    """
    has_twin = ~np.isnan(twin_labels)
    known, scores = cases[has_twin], twin_labels[has_twin]
    return Cases(known.labels, scores, scores == 1, known.groups)


def add_twins(
    table: pd.DataFrame, prints: Sequence[Array | None], index: Index, config: RunConfig,
    progress: Progress,
) -> tuple[pd.DataFrame, str]:  # fmt: skip
    """Find the most similar training picture for every picture.

    Rows of the training split get none: they would match themselves or pictures of their group.

    Args:
        table: From :func:`.predictions.predict`.
        prints: The fingerprint of each of its rows.
        index: The table whose ``train`` rows are searched.
        config: Number of reading threads.
        progress: Advanced once per training picture.

    Returns:
        The table with ``twin``, ``twin_likeness`` (cosine) and ``twin_view_REGION`` of the most
        similar picture whose regions are known, and ``labelled_twin``,
        ``labelled_twin_likeness`` and ``twin_label`` of the most similar one with a label; and
        the reason if the look-up is impossible, else an empty string.
    """
    table = table.assign(twin="", labelled_twin="")
    numbers = ("twin_likeness", *(f"twin_view_{r}" for r in REGIONS), "labelled_twin_likeness")
    table[[*numbers, "twin_label"]] = np.nan
    rows = [
        i
        for i, (split, mark) in enumerate(zip(table["split"], prints, strict=True))
        if split != "train" and mark is not None
    ]
    if not rows:
        return table, "pictures of the training split are not looked up among themselves"
    train = index.of("train")
    marks = read_fingerprints(train, config, progress)
    known = [(s, mark) for s, mark in zip(train, marks, strict=True) if mark is not None]
    if not known:
        return table, "the table has no training pictures to look up"
    queries = np.stack([mark for i in rows if (mark := prints[i]) is not None])
    root = index.source.parent
    for kind, references in (
        ("twin", [pair for pair in known if pair[0].regions != UNKNOWN]),
        ("labelled_twin", [pair for pair in known if pair[0].label is not None]),
    ):
        if references:
            positions, cosines = nearest(queries, np.stack([mark for _, mark in references]))
            twins = [references[position][0] for position in positions]
            _write_twins(table, rows, kind, twins, root)
            table.loc[rows, f"{kind}_likeness"] = cosines.astype(np.float64)
    return table, ""


def _write_twins(
    table: pd.DataFrame, rows: Sequence[int], kind: str, twins: Sequence[Sample], root: Path
) -> None:
    """Write the twins of some rows into the table."""
    table.loc[rows, kind] = [path_text(twin.path, root) for twin in twins]
    if kind == "labelled_twin":
        table.loc[rows, "twin_label"] = [float(twin.label == 1) for twin in twins]
        return
    for region, in_view in zip(REGIONS, zip(*(t.region_vector() for t in twins), strict=True),
                               strict=True):  # fmt: skip
        table.loc[rows, f"twin_view_{region}"] = np.array(in_view, np.float64)
