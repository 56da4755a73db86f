"""Warnings when thresholds are fitted to pictures of the networks' own training table."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from pipeline.bundle import BundleSpec, EnsembleSpec

from ..samples import Index, Split

log = logging.getLogger(__name__)


def log_seen(index: Index, split: Split, specs: Iterable[BundleSpec]) -> None:
    """Log whether networks were trained on a split, if their training used exactly this table.

    Args:
        index: Table.
        split: Split to which thresholds are fitted.
        specs: Contracts of the networks; for an ensemble, those of its members count.
    """
    learned = [
        spec.name
        for spec in specs
        if not isinstance(spec, EnsembleSpec) and spec.provenance.index_digest == index.digest
    ]
    if not learned:
        return
    names = ", ".join(dict.fromkeys(learned))
    source = f"{index.source}: split {split}"
    if split == "val":
        log.info(
            "%s chose epoch and calibration of %s: thresholds fitted to it are slightly optimistic",
            source, names,
        )  # fmt: skip
    elif split == "test":
        log.warning(
            "%s is the test split of %s: after this fit it is not an independent test",
            source,
            names,
        )
    else:
        log.warning(
            "%s was used to train %s: thresholds fitted to it are too optimistic for new pictures",
            source, names,
        )  # fmt: skip
