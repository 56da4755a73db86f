"""Progress output of a training run: the table by epoch, and the log in the run folder."""

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
    """Append fxpipe's log messages within the block to the log of a run, with timestamps.

    The log includes level INFO even if the command displays warnings only.
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
    """The table by epoch, line by line, for a terminal of 80 characters.

    Attributes:
        outputs: Outputs with an AUC column.
        epochs: Number of epochs of the whole run.
        pictures: Number of training pictures per epoch.
        done: Epochs that were finished before this process started.
    """

    outputs: Sequence[str]
    epochs: int
    pictures: int
    done: int = 0
    _start_s: float = field(default_factory=time.perf_counter)

    def head(self) -> tuple[str, str]:
        """Legend of the columns, and the line with their names."""
        names = [name.rjust(max(len(name), width)) for _, name, width, _ in self._columns()]
        legend = (
            "loss in training and validation; AUC on validation; score for the choice of the epoch "
            "(* best so far); pictures/s in training; time left"
        )
        return legend, _GAP.join(["epoch".rjust(_EPOCH), *names])

    def line(self, row: Mapping[str, Any], training_s: float, better: bool) -> str:
        """One epoch.

        Args:
            row: ``epoch``, ``train_loss``, ``val_loss``, ``score`` and ``auc_…``; None is
                displayed as a dash.
            training_s: Duration of training without validation.
            better: Whether it is the best epoch so far.
        """
        epoch = int(row["epoch"])
        each_s = (time.perf_counter() - self._start_s) / (epoch - self.done)
        values = {
            **row,
            "rate": self.pictures / training_s,
            "left": timedelta(seconds=round(each_s * (self.epochs - epoch))),
        }
        cells = [f"{epoch}/{self.epochs}".rjust(_EPOCH)]
        for key, name, width, form in self._columns():
            text = "–" if values[key] is None else format(values[key], form)
            if key == "score":
                text += "*" if better else " "
            cells.append(text.rjust(max(len(name), width)))
        return _GAP.join(cells)

    def _columns(self) -> list[tuple[str, str, int, str]]:
        """Key, heading, minimum width and format of each column."""
        return [
            ("train_loss", "train", 5, ".3f"),
            ("val_loss", "val", 5, ".3f"),
            *((f"auc_{name}", name, 5, ".3f") for name in self.outputs),
            ("score", "score", 6, ".3f"),
            ("rate", "/s", 5, ".1f"),
            ("left", "left", 7, ""),
        ]
