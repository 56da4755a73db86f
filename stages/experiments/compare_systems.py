"""Comparison of systems on the same table and the same test pictures."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from pipeline.bundle import Estimate, write_json
from pipeline.config import RunConfig
from pipeline.progress import Progress
from pipeline.runtime.session import Weights, load_bundles

from ..bundles.cost import count, speed
from ..data.index import assign_splits
from ..evaluation.evaluate import RESULT, SCHEMA, EvaluationRequest, evaluate
from ..samples import Index
from .system_configs import SystemConfig, make_system

log = logging.getLogger(__name__)

How = Literal["table", "patient", "picture"]
TIMED = 64
"""Maximum number of pictures for the measurement of speed."""


def resplit(index: Index, how: How, seed: int) -> Index:
    """The same table with other splits.

    Args:
        index: Table.
        how: ``table`` keeps the table's splits, ``patient`` splits by group, ``picture`` splits by
            picture: pictures of one patient are in several splits, which inflates the figures.
        seed: Equal seed and rows give equal splits.
    """
    if how == "table":
        return index
    splits = assign_splits(index.samples, seed, by=how)
    samples = tuple(replace(s, split=split) for s, split in zip(index.samples, splits, strict=True))
    digest = hashlib.sha256(f"{index.digest} {how} {seed}".encode()).hexdigest()
    return Index(index.source, digest, samples)


def compare_system(
    folder: Path, system: SystemConfig, index: Index, config: RunConfig, progress: Progress
) -> dict[str, Any]:
    """Train and export a system, unless it is finished, and measure it.

    Args:
        folder: See :func:`stages.experiments.system_configs.make_system`; also gets ``evaluation``.
        system: Settings.
        index: Table with the splits to use.
        config: Device and precision of the measurement.
        progress: Advanced once per batch or picture.

    Returns:
        Its row.
    """
    weights = make_system(folder, system, index, progress)
    return measure(folder, weights, system.title, index, config, progress)


def measure(
    folder: Path, weights: Path, title: str, index: Index, config: RunConfig, progress: Progress
) -> dict[str, Any]:
    """Evaluate a weights folder, and measure its cost.

    Returns:
        JSON: ``title``, ``folder``, ``pictures``, ``shared_groups`` (test pictures whose group is
        also in the training split), ``figures`` and ``baselines`` by name, ``cost`` and
        ``images_per_s``.
    """
    output = folder / "evaluation"
    networks = load_bundles(weights, config)
    if not _is_of(output / RESULT, networks, index):
        output.mkdir(parents=True, exist_ok=True)
        evaluate(index, networks, config, EvaluationRequest(), output, progress)
    figures = json.loads((output / RESULT).read_text(encoding="utf-8"))
    tested = index.of("test")
    training_groups = {sample.group for sample in index.of("train")}
    readable = [sample.path for sample in tested][:TIMED]
    return {
        "title": title,
        "folder": folder.name,
        "pictures": len(tested),
        "shared_groups": sum(sample.group in training_groups for sample in tested),
        **_figures(figures),
        "cost": asdict(count(weights)),
        "images_per_s": speed(weights, readable, config),
        "precision": networks.precision.value,
        "device": networks.device,
    }


def _is_of(evaluation: Path, networks: Weights, index: Index) -> bool:
    """Whether there is an evaluation of exactly these files on exactly this table."""
    if not evaluation.is_file():
        return False
    content = json.loads(evaluation.read_text(encoding="utf-8"))
    if content["schema_version"] != SCHEMA:
        return False
    facts = content["facts"]
    measured = {name: bundle["sha256"] for name, bundle in facts["bundles"].items()}
    opened = {network.spec.name: network.digest for network in networks.networks}
    return bool(facts["table_digest"] == index.digest and measured == opened)


def _figures(content: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of the table with their baselines."""
    undefined = {"value": None, "low": None, "high": None, "note": "no such stage"}
    pooled = content["fracture"]["pooled"]["in view"]
    ends = content["end_to_end"]["all"]["accuracy"]
    region = (content["region"] or {}).get("accuracy")
    baselines = ("majority", "look_up")
    sources = ("network", *baselines)
    parts = {
        "region accuracy": region or dict.fromkeys(sources, undefined),
        "fracture AUC": {source: pooled[source]["auc"] for source in sources},
        "fracture accuracy": {source: pooled[source]["accuracy"] for source in sources},
        "end to end": ends,
    }
    return {
        "judged": pooled["pictures"],
        "pairs": pooled["pairs"],
        "positives": pooled["positives"],
        "figures": {name: part["network"] for name, part in parts.items()},
        "baselines": {
            baseline: {name: part[baseline] for name, part in parts.items()}
            for baseline in baselines
        },
    }  # fmt: skip


def source_commit() -> str:
    """The commit of this code's checkout, with a + if there are uncommitted changes."""
    git, home = shutil.which("git"), Path(__file__).parent
    if git is None:
        return "unknown"
    commands = ([git, "rev-parse", "--short", "HEAD"], [git, "status", "--porcelain", "-uno"])
    head, status = (
        subprocess.run(command, cwd=home, capture_output=True, text=True, check=False)
        for command in commands
    )
    if head.returncode or status.returncode:
        return "unknown"
    return head.stdout.strip() + ("+" if status.stdout.strip() else "")


def write_comparison(
    rows: Sequence[Mapping[str, Any]], output: Path, origin: Mapping[str, Any]
) -> str:
    """Write ``comparison.json`` and ``comparison.md``; return the latter, a Markdown table.

    Args:
        rows: From :func:`measure`.
        output: Folder.
        origin: Settings of the comparison, listed below the table.
    """
    write_json(output / "comparison.json", {"origin": dict(origin), "systems": list(rows)})
    caption = ", ".join(f"{name} {value}" for name, value in origin.items())
    text = f"{as_markdown(rows)}\n{caption}.\n"
    (output / "comparison.md").write_text(text, encoding="utf-8")
    return text


def as_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line per system, after the baselines on the same pictures."""
    names = list(rows[0]["figures"])
    head = ["system", *names, "parameters (M)", "multiply-adds (G)", "images/s"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in rows:
        for baseline, title in (("majority", "majority class"), ("look_up", "look-up")):
            cells = [_cell(row["baselines"][baseline][name]) for name in names]
            line = f"| *{title}* | {' | '.join(cells)} | | | |"
            if line not in lines:
                lines.append(line)
        cost = row["cost"]
        cells = [_cell(row["figures"][name]) for name in names]
        numbers = (
            f"{cost['parameters'] / 1e6:.1f}", f"{cost['multiply_adds'] / 1e9:.2f}",
            f"{row['images_per_s']:.1f}",
        )  # fmt: skip
        lines.append(f"| {row['title']} | {' | '.join((*cells, *numbers))} |")
    return "\n".join([*lines, "", *_footnotes(rows)]) + "\n"


def _footnotes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    first = rows[0]
    notes = [
        f"{first['pictures']} test pictures, {first['judged']} of them with a region in view "
        f"and a label, which give {first['pairs']} pairs of a picture and a region "
        f"({first['positives']} positive); 95 % intervals by bootstrap over groups; "
        f"{first['precision']} on {first['device']}, including reading of the files."
    ]
    notes += [
        f"{row['title']}: {row['shared_groups']} of {row['pictures']} test pictures are of a "
        "patient (group) in the training split: its figures are inflated."
        for row in rows
        if row["shared_groups"]
    ]
    return notes


def _cell(figure: Mapping[str, Any]) -> str:
    estimate = Estimate.model_validate(figure)
    if estimate.value is None:
        return "–"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"
