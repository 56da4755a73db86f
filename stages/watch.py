"""What a training run says while it goes on, and where that is kept: the log in its folder."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

LOG = "train.log"
_PACKAGES = ("stages", "pipeline")
_GAP = "  "
_EPOCH = 7


@contextmanager
def kept_log(run: Path) -> Iterator[None]:
    """Add to the log of a run, with the time, what fxpipe tells while the block runs.

    Notes go there even where the command shows warnings alone.
    """
    handler = logging.FileHandler(run / LOG, encoding="utf-8", delay=True)
    handler.setFormatter(
        logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%Y-%m-%d %H:%M:%S")
    )
    loggers = [logging.getLogger(package) for package in _PACKAGES]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(min(logger.getEffectiveLevel(), logging.INFO))
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
        handler.close()


@dataclass(frozen=True, slots=True)
class EpochTable:
    """The table by epoch, a line at a time, as wide as a plain terminal.

    Attributes:
        outputs: Whose AUC is told.
        epochs: Of the whole run.
        pictures: That an epoch trains on.
        done: Epochs that were finished before this process began.
    """

    outputs: Sequence[str]
    epochs: int
    pictures: int
    done: int = 0
    _began_s: float = field(default_factory=time.perf_counter)

    def head(self) -> tuple[str, str]:
        """What the columns are, and their names."""
        names = [name.rjust(max(len(name), width)) for _, name, width, _ in self._columns()]
        told = (
            "loss in training and validation; AUC on validation; the score that chooses the epoch "
            "(* the best so far); pictures/s in training; time left"
        )
        return told, _GAP.join(["epoch".rjust(_EPOCH), *names])

    def line(self, row: Mapping[str, Any], training_s: float, better: bool) -> str:
        """One epoch.

        Args:
            row: ``epoch``, ``train_loss``, ``val_loss``, ``score`` and ``auc_…``; None is shown
                as a dash.
            training_s: What it took, validation not counted.
            better: Whether it is the best so far.
        """
        epoch = int(row["epoch"])
        each_s = (time.perf_counter() - self._began_s) / (epoch - self.done)
        told = {
            **row,
            "rate": self.pictures / training_s,
            "left": timedelta(seconds=round(each_s * (self.epochs - epoch))),
        }
        cells = [f"{epoch}/{self.epochs}".rjust(_EPOCH)]
        for key, name, width, form in self._columns():
            text = "–" if told[key] is None else format(told[key], form)
            if key == "score":
                text += "*" if better else " "
            cells.append(text.rjust(max(len(name), width)))
        return _GAP.join(cells)

    def _columns(self) -> list[tuple[str, str, int, str]]:
        """Key, heading, least width and format of each."""
        return [
            ("train_loss", "train", 5, ".3f"),
            ("val_loss", "val", 5, ".3f"),
            *((f"auc_{name}", name, 5, ".3f") for name in self.outputs),
            ("score", "score", 6, ".3f"),
            ("rate", "/s", 5, ".1f"),
            ("left", "left", 7, ""),
        ]
