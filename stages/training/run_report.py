"""Text reports of finished runs and cross-validations."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from .run import RESULT


def describe_result(run: Path) -> str:
    """The test figures of a run, each with its 95 % interval and its baseline."""
    result = json.loads((run / RESULT).read_text(encoding="utf-8"))
    test = result["test"]
    lines = [f"{run}: best epoch {result['best_epoch']}; test split:"]
    if "argmax_accuracy" in test:
        lines += [
            f"  region accuracy {_figure(test['argmax_accuracy'])}"
            f" on {test['single_region_pictures']} single-region pictures"
            f"; majority {_figure(test['baseline_majority'])}",
            f"  unsupported refused {_figure(test['unsupported_refused'])}"
            f" of {test['unsupported_pictures']}",
            f"  supported refused {_figure(test['supported_refused'])}",
        ]
        if gate := result.get("density"):  # missing in older runs
            lines.append(
                f"  density gate alone, similarity threshold {gate['threshold']:.3f}: unsupported"
                f" refused {_figure(gate['test']['unsupported_refused'])}, supported refused"
                f" {_figure(gate['test']['supported_refused'])}"
            )
        return "\n".join(lines)
    points = result["operating_points"]
    thresholds = (f"{name} {point['threshold']:.4f}" for name, point in points.items())
    lines.append(f"  thresholds: {', '.join(thresholds)}")
    lines += [
        f"  {name}: {point['rule']}"
        for name, point in points.items()
        if None in (point["sensitivity"]["value"], point["specificity"]["value"])
    ]
    for name, part in test.items():
        lines.append(
            f"  {name.replace('_', ' ')} ({part['pictures']} pictures,"
            f" {part['positives']} positive): AUC {_figure(part['auc'])} (chance 0.5);"
            f" at {result['default_point']}: sensitivity {_figure(part['sensitivity'])},"
            f" specificity {_figure(part['specificity'])},"
            f" accuracy {_figure(part['accuracy'])}"
            f" (majority {_figure(part['baseline_majority_accuracy'])})"
        )
    return "\n".join(lines)


def warnings_of(run: Path) -> list[str]:
    """Warnings about the reliability of a finished run."""
    result = json.loads((run / RESULT).read_text(encoding="utf-8"))
    return [f"{run}: {warning}" for warning in result["warnings"]]


def describe_crossval(folder: Path) -> str:
    """Pooled out-of-fold figures, each with its 95 % interval, and the spread over the folds."""
    summary = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    finished = summary["finished"]
    lines = [
        f"{folder}: folds {', '.join(map(str, finished))} of {summary['folds']},"
        f" {summary['pictures']} pictures out of fold:"
    ]
    for name, part in summary["pooled"].items():
        line = _part(name, part)
        if "auc" in part:
            folds = [row.get(name) for row in summary["by_fold"]]
            listed = ", ".join("–" if value is None else f"{value:.3f}" for value in folds)
            known = [value for value in folds if value is not None]
            mean = f"{statistics.mean(known):.3f}" if known else "–"
            line += f"; by fold {listed}, mean {mean}"
        lines.append(line)
    for row in summary["by_fold"]:
        if "figures" in row:
            lines.append(f"left out: {row['name']}, fold {row['fold']}, {row['pictures']} pictures")
            lines += [_part(name, part) for name, part in row["figures"].items()]
    return "\n".join([*lines, *filter(None, [summary["note"]])])


def _part(name: str, part: dict[str, Any]) -> str:
    """Format one figure of a cross-validation as a line."""
    if "auc" not in part:
        return f"  {name} {_figure(part)}"
    return (
        f"  {name} ({part['pictures']} pictures, {part['positives']} positive):"
        f" AUC {_figure(part['auc'])} (chance 0.5)"
    )


def _figure(estimate: dict[str, Any]) -> str:
    if estimate["value"] is None:
        return f"undefined ({estimate['note']})"
    if estimate["low"] is None:
        return f"{estimate['value']:.3f}"
    return f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"
