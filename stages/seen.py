"""Whether networks know the pictures that something is fitted to."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from pipeline.bundle import BundleSpec, EnsembleSpec

from .data.index import Index, Split

log = logging.getLogger(__name__)


def tell_seen(index: Index, split: Split, specs: Iterable[BundleSpec]) -> None:
    """Log what networks have seen of a split when it is one of the very table of their training.

    Args:
        index: Table.
        split: Whose pictures thresholds are fitted to.
        specs: Contracts of the networks that answer; what an ensemble saw, its members say.
    """
    learned = [
        spec.name
        for spec in specs
        if not isinstance(spec, EnsembleSpec) and spec.provenance.index_digest == index.digest
    ]
    if not learned:
        return
    names = ", ".join(dict.fromkeys(learned))
    source = f"{index.source}: split {split} of this very table"
    if split == "val":
        log.info(
            "%s chose epoch and calibration of %s: thresholds fitted to it flatter a little",
            source, names,
        )  # fmt: skip
    elif split == "test":
        log.warning(
            "%s is the test split of %s: what is fitted to it cannot be tested on it", source, names
        )
    else:
        log.warning(
            "%s has been seen in training by %s: thresholds fitted to it promise too much for new "
            "pictures", source, names,
        )  # fmt: skip
