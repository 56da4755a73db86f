"""The figures as long tables: one row per figure, with its interval and baselines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from .figures import Figures, measured, risk_cases, risk_curve
from .header import BY
from .routing import confusion
from .under_shift import MEAN

_COUNTS = ("pictures", "pairs", "positives", "groups", "looked_up")


def write_tables(figures: Figures, table: pd.DataFrame, folder: Path) -> None:
    """Write every table of an evaluation as CSV.

    Args:
        figures: Under ``region``, ``gate``, ``header``, ``fracture``, ``cross_region``,
            ``end_to_end``, ``subgroups``, ``risk_coverage``, ``pointing``, ``studies`` and
            ``shifts``.
        table: The predictions.
        folder: Output folder. If a chapter is None, its older table is deleted.
    """
    tables: dict[str, pd.DataFrame | None] = {
        "region": _routing(figures["region"]),
        "region_confusion": confusion(table).reset_index()
        if figures["region"] is not None
        else None,
        "gate": pd.DataFrame(_gate(figures["gate"])) if figures["gate"] is not None else None,
        "header": pd.DataFrame(_header(figures["header"])) if figures["header"] else None,
        "fracture": pd.DataFrame(_long(figures["fracture"], "region", "set")),
        "cross_region": _crossed(figures["cross_region"]),
        "subgroups": pd.DataFrame(_long(figures["subgroups"], "subgroup", "part")),
        "end_to_end": pd.DataFrame(_ends(figures["end_to_end"])),
        "pointing": pd.DataFrame(_pointing(figures["pointing"])),
        "studies": pd.DataFrame(_studies(figures["studies"])) if figures["studies"] else None,
        "shifts": pd.DataFrame(_shifts(figures["shifts"])) if figures["shifts"] else None,
        "risk_coverage": _curves(table),
    }
    for name, frame in tables.items():
        target = folder / f"{name}.csv"
        if frame is None:
            target.unlink(missing_ok=True)
        else:
            frame.to_csv(target, index=False, lineterminator="\n")


def _routing(region: Figures | None) -> pd.DataFrame | None:
    if region is None:
        return None
    overall = {k: region[k] for k in region if k not in ("regions", "confusion")}
    firing = _long({"fires": region["regions"]}, "set", "region")
    return pd.DataFrame([*_rates({"all": overall}, "region"), *firing]).drop(columns="set")


def _header(figures: Figures) -> Iterator[dict[str, Any]]:
    """Rows of :func:`.header.header_figures`, including the counts by effect of the header."""
    for name, part in figures.items():
        if name == "effects":
            for effect, count in part.items():
                yield {"figure": effect, "pictures": count}
        elif name != "pictures":
            for by in BY:
                yield {
                    "figure": name, "by": by, **part[by].model_dump(),
                    "pictures": part["pictures"],
                }  # fmt: skip


def _gate(figures: Figures) -> Iterator[dict[str, Any]]:
    for part, refused in figures["refused"].items():
        for by, count in refused["counts"].items():
            yield {
                "figure": f"{part} refused", "by": by, "count": count,
                **refused["shares"][by].model_dump(), "pictures": refused["pictures"],
            }  # fmt: skip
    total = sum(refused["pictures"] for refused in figures["refused"].values())
    for by, estimate in figures["auc"].items():
        yield {"figure": "auc", "by": by, **estimate.model_dump(), "pictures": total}


def _crossed(figures: Figures | None) -> pd.DataFrame | None:
    return None if figures is None else pd.DataFrame(_long(figures, "specialist", "in_view"))


def _long(figures: Figures, outer: str, inner: str) -> Iterator[dict[str, Any]]:
    """Rows of nested :func:`.figures.compare`."""
    for first, parts in figures.items():
        for second, compared in parts.items():
            for name, estimate in compared["network"].items():
                yield {
                    outer: first, inner: second, "figure": name, **estimate.model_dump(),
                    "majority": compared["majority"][name].value,
                    "look_up": compared["look_up"][name].value,
                    **{count: compared[count] for count in _COUNTS},
                }  # fmt: skip


def _rates(figures: Figures, key: str) -> Iterator[dict[str, Any]]:
    """Rows of shares that have baselines."""
    for part, rates in figures.items():
        for name, compared in rates.items():
            yield {
                key: part, "figure": name, **compared["network"].model_dump(),
                "majority": compared["majority"].value, "look_up": compared["look_up"].value,
                "pictures": compared["pictures"],
            }  # fmt: skip


def _ends(figures: Figures) -> Iterator[dict[str, Any]]:
    for part, ends in figures.items():
        for name, count in ends["counts"].items():
            yield {
                "in_view": part, "figure": name, "count": count,
                **ends["shares"][name].model_dump(),
            }  # fmt: skip
        for name, counts in (("refused", ends["refused"]), ("uncertain", ends["uncertain"])):
            for kind, count in counts.items():
                yield {"in_view": part, "figure": f"{name}, {kind}", "count": count}
        for row in _rates({part: {"accuracy": ends["accuracy"]}}, "in_view"):
            count = ends["counts"]["right"] + ends["refused"]["rightly"]
            yield {**row, "count": count}


def _pointing(figures: Figures) -> Iterator[dict[str, Any]]:
    for region, part in figures.items():
        for hit in ("centre", "cell"):
            yield {
                "region": region, "hit": hit, **part[hit]["network"].model_dump(),
                "chance": part[hit]["chance"].value, "middle": part[hit]["middle"].value,
                **{f"margin_{k}": v for k, v in part[hit]["margin"].model_dump().items()},
                "pictures": part["pictures"],
            }  # fmt: skip


def _studies(figures: Figures) -> Iterator[dict[str, Any]]:
    """Rows of :func:`.studies.study_figures`."""
    counts = ("studies", "positives", "several", "pictures", "positive_pictures", "groups")
    for region, sets in figures.items():
        for name, part in sets.items():
            keys = {"region": region, "set": name}
            totals = {count: part[count] for count in counts}
            for level, estimate in part["auc"].items():
                yield {
                    **keys, "threshold": "", "of": level, "figure": "auc",
                    **estimate.model_dump(), **totals,
                }  # fmt: skip
            for threshold, at in part["at"].items():
                rows = [(of, k, e) for of in ("pictures", "studies") for k, e in at[of].items()]
                rows.append(("pictures less studies", "specificity_cost", at["specificity_cost"]))
                for of, figure, estimate in rows:
                    yield {
                        **keys, "threshold": threshold, "of": of, "figure": figure,
                        **estimate.model_dump(), **totals,
                    }  # fmt: skip


def _shifts(chapter: Figures) -> Iterator[dict[str, Any]]:
    """Rows of :func:`.under_shift.shift_figures`; the last ones are means over the shifts."""
    for name, figures in (*chapter["by_shift"].items(), (MEAN, chapter[MEAN])):
        for figure, estimate in figures.items():
            yield {"shift": name, "figure": figure, **estimate.model_dump()}


def _curves(table: pd.DataFrame) -> pd.DataFrame:
    frames = []
    for region in measured(table):
        coverage, risk = risk_curve(risk_cases(table, region))
        frames.append(pd.DataFrame({"region": region, "coverage": coverage, "risk": risk}))
    return pd.concat(frames)
