"""Routing with and without the header, on tables small enough to count by hand."""

from __future__ import annotations

from prediction_tables import row, table

from stages.evaluation.evaluate import all_figures
from stages.evaluation.figures import Settings
from stages.evaluation.header import IGNORED, NO_HEADER, header_lines, header_note
from stages.evaluation.tables import write_tables

FACTS = {"no_region_stage": "", "header": "combine"}


def with_header(words: str, effect: str, alone: str, after: str, regions: str) -> dict[str, object]:
    fired = [name for name in after.split(";") if name]
    changes = {"header_says": words, "header_effect": effect, "fired_alone": alone}
    return row(regions, fired=fired, **changes)


def five_with_header():
    return table(
        with_header("CHEST", "vetoed", "shoulder", "", "none"),
        with_header("KNEE", "vetoed", "hand", "", "hand"),  # the header is wrong
        with_header("HAND", "helped", "", "hand", "hand"),
        with_header("ELBOW", "agreed", "elbow", "elbow", "elbow"),
        with_header("HAND", "nothing", "", "", "hand"),
        row("hand", fired=[], header_effect="nothing"),  # no header: not counted
    )


def test_routing_with_and_without_the_header():
    section = all_figures(five_with_header(), Settings())["header"]
    assert section["pictures"] == 5
    assert section["effects"] == {"vetoed": 2, "helped": 1, "agreed": 1, "nothing": 1}
    values = {
        name: (part["pictures"], part["pixels alone"].value, part["with header"].value)
        for name, part in section.items()
        if name not in ("pictures", "effects")
    }
    assert values == {
        "exact": (5, 0.4, 0.6),
        "supported_refused": (4, 0.5, 0.5),
        "unsupported_refused": (1, 0.0, 1.0),
    }


def test_lines_note_and_table(tmp_path):
    rows = five_with_header()
    figures = all_figures(rows, Settings())
    lines = list(header_lines(figures))
    assert [line.of for line in lines] == [5, 4, 1]
    assert (lines[0].alone.value, lines[0].combined.value) == (0.4, 0.6)
    note = header_note(figures, FACTS)
    assert "5 pictures with a header" in note
    assert "2 vetoed, 1 helped" in note
    write_tables(figures, rows, tmp_path)
    text = (tmp_path / "header.csv").read_text().splitlines()
    assert text[0].startswith("figure,pictures,by,value")
    assert len(text) == 1 + 4 + 2 * 3


def test_section_is_null_with_a_reason_without_headers_router_or_permission(tmp_path):
    (tmp_path / "header.csv").write_text("from an earlier evaluation\n")
    rows = table(row(header_effect="nothing"), row(label=1, header_effect="nothing"))
    figures = all_figures(rows, Settings())
    assert figures["header"] is None
    assert NO_HEADER in header_note(figures, FACTS)
    write_tables(figures, rows, tmp_path)
    assert not (tmp_path / "header.csv").exists()
    ignored = five_with_header().assign(header_effect="ignored")
    figures = all_figures(ignored, Settings())
    assert figures["header"] is None
    assert IGNORED in header_note(figures, {**FACTS, "header": "ignore"})
    assert all_figures(five_with_header(), Settings(no_region_stage="no router"))["header"] is None
    assert "no router" in header_note(figures, {**FACTS, "no_region_stage": "no router"})
