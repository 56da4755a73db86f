"""Refusal of tables with leaks before training."""

from dataclasses import replace
from pathlib import Path

import pytest
from tables import fracatlas_folder

from pipeline.errors import IndexFaultsError
from pipeline.progress import Silent
from stages.data.adapters.fracatlas import read_fracatlas
from stages.data.index import assign_splits, read_index, write_index
from stages.data.leak_check import refuse_leaks

SAMPLES = Path(__file__).parents[4] / "samples"


class Count(Silent):
    """Progress that counts the pictures."""

    pictures = 0

    def advance(self):
        self.pictures += 1


@pytest.fixture
def leaky(tmp_path):
    """A table with a recompressed training picture in the test split, and that picture's row."""
    from PIL import Image

    folder = fracatlas_folder(tmp_path / "data", per_cell=3)
    samples = read_fracatlas(folder)
    splits = assign_splits(samples, seed=0, parts=3)
    samples = [replace(s, split=x) for s, x in zip(samples, splits, strict=True)]
    twin = next(s for s in samples if s.split == "train")
    copy = folder / "images/copy.jpg"
    real = Image.open(SAMPLES / "IMG0001380.jpg")  # generated pictures have no fine structure
    real.save(twin.path, quality=95)
    real.save(copy, quality=60)
    samples.append(replace(twin, path=copy, split="test", group="other", sha256="0" * 64))
    write_index(samples, tmp_path / "index.csv")
    return read_index(tmp_path / "index.csv"), twin


def test_error_names_a_recompressed_copy_in_another_split(leaky, tmp_path):
    table, twin = leaky
    with pytest.raises(IndexFaultsError, match=rf"{twin.path.name}: near duplicate") as caught:
        refuse_leaks([table], tmp_path / "cache", False, Silent())
    assert "copy.jpg" in str(caught.value)
    assert "--allow-leaks" in caught.value.hint


def test_allowed_leaks_cause_a_warning(leaky, tmp_path, caplog):
    refuse_leaks([leaky[0]], tmp_path / "cache", True, Silent())
    assert "allowed" in caplog.text


def test_excluded_copy_is_not_a_leak_and_files_are_read_once(leaky, tmp_path):
    table, _ = leaky
    clean = replace(
        table,
        samples=tuple(
            replace(s, split="excluded") if s.path.name == "copy.jpg" else s for s in table.samples
        ),
    )
    first, second = Count(), Count()
    refuse_leaks([clean], tmp_path / "cache", False, first)
    refuse_leaks([clean], tmp_path / "cache", False, second)
    assert (first.pictures, second.pictures) == (len(table.samples), 0)


def test_every_fold_is_checked(leaky, tmp_path):
    table, _ = leaky
    together = replace(
        table,
        samples=tuple(
            replace(s, split="train") if s.path.name == "copy.jpg" else s for s in table.samples
        ),
    )
    refuse_leaks([together], tmp_path / "cache", False, Silent())
    with pytest.raises(IndexFaultsError):
        refuse_leaks([together, table], tmp_path / "cache", False, Silent())
