"""The evaluation as one self-contained HTML page."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline.atomic import write_atomic
from pipeline.domain import ANY_REGION, REGIONS

from .figures import POOLED, SETS, Figures
from .gate import REFUSED_BY, SCORES
from .header import BY, header_lines, header_note
from .headlines import (
    FOOTNOTE,
    bounds,
    figure_name,
    headlines,
    number,
    study_lines,
    study_note,
    words,
)
from .limb import limb_note
from .under_shift import WIDE_PANEL, panels, shift_note

TEMPLATE = "evaluation.html"


def write_page(
    facts: Mapping[str, Any], figures: Figures, plots: Sequence[Path], target: Path
) -> None:
    """Write the page with its plots embedded.

    Args:
        facts: See :func:`.evaluate.describe`.
        figures: See :func:`.tables.write_tables`.
        plots: PNG files; the template refers to them by their stems.
        target: The HTML file.
    """
    environment = Environment(
        loader=PackageLoader(__package__, "."), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "words": words, "number": number, "bounds": bounds, "figure_name": figure_name,
    }  # fmt: skip
    chapter = figures["shifts"]
    page = environment.get_template(TEMPLATE).render(
        facts=facts, figures=figures, headlines=list(headlines(figures)),
        footnote=FOOTNOTE, study_lines=list(study_lines(figures)), study_note=study_note(facts),
        header_lines=list(header_lines(figures)), header_note=header_note(figures, facts),
        limb_note=limb_note(figures["limb"]),
        header_by=BY, regions=REGIONS,
        refusers=REFUSED_BY, scores=SCORES,
        shift_panels=list(panels(chapter, WIDE_PANEL)) if chapter else [],
        shift_note=shift_note(chapter, facts["pictures"]) if chapter else "",
        any_region=ANY_REGION, pooled=POOLED, sets=SETS,
        plots={plot.stem: _data_uri(plot) for plot in plots},
    )  # fmt: skip
    write_atomic(target, page.encode())


def _data_uri(plot: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(plot.read_bytes()).decode("ascii")
