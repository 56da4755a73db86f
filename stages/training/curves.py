"""Training curves of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from pipeline.io.own_output import MAKER


def plot_curves(history: Sequence[Mapping[str, Any]], target: Path) -> None:
    """Losses and validation AUC by epoch, as PNG.

    Args:
        history: One mapping per epoch, from :func:`stages.training.loop.validate`.
        target: File to write.
    """
    epochs = [row["epoch"] for row in history]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    loss, score = figure.subplots(1, 2)
    for key, name in (("train_loss", "training"), ("val_loss", "validation")):
        loss.plot(epochs, [row[key] for row in history], marker="o", markersize=3, label=name)
    for key in history[0]:
        if key.startswith("auc_"):
            values = [row[key] if row[key] is not None else float("nan") for row in history]
            score.plot(epochs, values, marker="o", markersize=3, label=key.removeprefix("auc_"))
    loss.set(title="Loss", xlabel="epoch")
    score.set(title="Validation AUC", xlabel="epoch")
    for axes in (loss, score):
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
        axes.xaxis.get_major_locator().set_params(integer=True)
    figure.savefig(target, dpi=110, metadata={"Software": MAKER})
