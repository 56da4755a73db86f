"""Detection of the layout of a data set."""

from __future__ import annotations

import layouts
import pytest
from layouts import draw, sheet
from tables import fracatlas_folder

from pipeline.errors import InputMissingError, UsageError
from stages.data.adapters.layouts import LAYOUTS, read_layout, recognise
from stages.data.adapters.pictures import unwatched


def data_sets(home):
    """Write a data set in every layout; return their paths by the layout's name."""
    pictures = [draw(home / "own" / f"{n}.png", n) for n in range(2)]
    return {
        "mura": layouts.mura(home / "a"),
        "fracatlas": layouts.fracatlas(home / "b", [{"image_id": "a.jpg", "fractured": 1}]),
        "folders": layouts.multi_region(home / "c"),
        "dicom": layouts.studies(home / "d", [{}]),
        "table": sheet(home / "own" / "my.csv", [["path", "label"], [pictures[0].name, 1]]),
    }


def test_every_layout_is_recognised_and_read(tmp_path):
    sources = data_sets(tmp_path)
    assert set(sources) == set(LAYOUTS)
    for name, source in sources.items():
        assert recognise(source) == name
        rows = read_layout(name, source, unwatched, {})
        assert rows
        assert all(row.sha256 and row.group and row.origin for row in rows)


def test_fracatlas_with_the_labels_of_this_project_is_recognised(tmp_path):
    assert recognise(fracatlas_folder(tmp_path / "data", per_cell=1)) == "fracatlas"


def test_unknown_layout_is_refused_with_the_files_found_and_the_layouts_known(tmp_path):
    draw(tmp_path / "odd" / "set_b" / "1.png", 1)
    (tmp_path / "odd" / "notes.txt").write_text("x")
    with pytest.raises(UsageError) as caught:
        recognise(tmp_path / "odd")
    text = str(caught.value)
    assert "found set_b/, notes.txt" in text
    for name, layout in LAYOUTS.items():
        assert f"- {name}: {layout.description}" in text
    assert "--layout" in caught.value.hint


def test_numbered_folders_are_not_classes(tmp_path):
    for n in ("0", "1", "2"):
        draw(tmp_path / "grades" / n / "a.png", int(n))
    with pytest.raises(UsageError):
        recognise(tmp_path / "grades")


def test_layout_that_the_files_do_not_have_is_refused(tmp_path):
    draw(tmp_path / "odd" / "1.png", 1)
    for name in ("mura", "fracatlas"):
        with pytest.raises(InputMissingError, match="expected"):
            read_layout(name, tmp_path / "odd", unwatched, {})
    with pytest.raises(InputMissingError, match="expected a CSV file"):
        read_layout("table", tmp_path / "odd", unwatched, {})


def test_option_of_another_layout_is_refused(tmp_path):
    root = layouts.mura(tmp_path)
    with pytest.raises(
        UsageError, match="--label-kind applies to layout table or folders or dicom"
    ):
        read_layout("mura", root, unwatched, {"label_kind": "fracture"})
