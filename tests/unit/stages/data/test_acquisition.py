"""Acquisitions inferred from picture sizes, and folds that leave one out."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factories import bone, raster
from tables import sample

from pipeline.errors import ConfigError, UnreadableImageError
from stages.data.acquisition import (
    MIN_GROUPS,
    acquisition,
    keep_groups_whole,
    left_out,
    read_acquisitions,
)
from stages.experiments.folds import folds_by_acquisition
from stages.samples import Index, Sample


@pytest.mark.parametrize(
    ("sizes", "name"),
    [
        (((373, 454), (454, 373), (1760, 2140), (842, 1024)), "1.22"),
        (((2304, 2880), (2880, 2304), (819, 1024)), "1.25"),
        (((512, 512),), "1.00"),
    ],
)
def test_acquisition_does_not_depend_on_scale_and_orientation(sizes, name):
    assert {acquisition(*size) for size in sizes} == {name}


def test_group_of_two_acquisitions_is_assigned_to_that_of_most_of_its_pictures():
    groups = ["a", "a", "a", "b", "b", "c", "d"]
    names = ["x", "y", "y", "x", "y", "x", "x"]
    whole, divided = keep_groups_whole(groups, names)
    assert whole == ["y", "y", "y", "x", "x", "x", "x"]  # b: x has more pictures in all
    assert divided == 2


def test_only_acquisitions_with_enough_groups_of_supported_regions_are_left_out():
    rows = [sample(str(n), group=f"g{n}") for n in range(MIN_GROUPS)]
    legs = [sample(f"l{n}", group=f"l{n}", regions="none") for n in range(MIN_GROUPS)]
    names = ["x"] * MIN_GROUPS + ["y"] * MIN_GROUPS
    assert left_out(rows + legs, names) == ["x"]
    assert left_out(rows[1:], names[1:MIN_GROUPS]) == []


def pictures(folder: Path) -> Index:
    """Two machines with 24 groups of 2 each, a group of both, a crop, chests and a test row."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for shape in ((454, 373), (373, 454), (50, 40), (60, 33)):
        files[shape] = folder / f"{shape[0]}x{shape[1]}.png"
        files[shape].write_bytes(raster((bone(*shape) * 255).astype(np.uint8), "PNG"))
    rows: list[Sample] = []

    def add(shape, group, **changes):
        path = folder / f"{len(rows)}.png"
        path.symlink_to(files[shape])
        values = {"origin": "set/x", "label": len(rows) // 2 % 2, "group": group}
        rows.append(sample(str(path), **values | {"sha256": str(len(rows))} | changes))

    for n in range(48):
        add((454, 373) if n % 3 else (373, 454), f"small{n // 2}")
        add((50, 40), f"large{n // 2}")
    add((454, 373), "both")
    add((454, 373), "both")
    add((50, 40), "both")
    add((60, 33), "crop")
    for n in range(30):
        add((50, 40), f"chest{n}", origin="chests", regions="none", label=None, label_kind="")
    add((50, 40), "held", split="test")
    return Index(folder / "index.csv", "d" * 64, tuple(rows))


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("acquired"))


def test_acquisition_names_contain_data_set_and_aspect_ratio(table):
    names = read_acquisitions(table.samples)
    assert Counter(names) == {
        "set 1.22": 50, "set 1.25": 50, "set 1.82": 1, "chests 1.25": 30,
    }  # fmt: skip
    broken = table.source.parent / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(UnreadableImageError, match=r"broken\.png"):
        read_acquisitions([sample(str(broken))])


def test_tested_acquisition_is_not_used_for_training_or_validation(table):
    folds = folds_by_acquisition(table, 5, 7, ("train", "val"))
    assert (folds.names, folds.by, len(folds)) == (("set 1.22", "set 1.25"), "acquisition", 2)
    assert "1 group(s) of several acquisitions" in folds.note
    assert "31 picture(s)" in folds.note  # the crop, and the chests
    for fold, shape in zip(folds.tables, ("1.22", "1.25"), strict=True):
        tested = fold.of("test")
        names = Counter(read_acquisitions(tested))
        assert names[f"set {shape}"] in (48, 50)
        assert (
            sum(names.values()) == {"1.22": 51, "1.25": 48}[shape]
        )  # group "both" is mostly small
        others = Counter(read_acquisitions(fold.of("train") + fold.of("val")))
        assert f"set {shape}" not in others  # including the group "both"
        assert others["chests 1.25"] == 30
        assert others["set 1.82"] == 1
        assert 0.1 < len(fold.of("val")) / sum(others.values()) < 0.3
        splits_of: dict[str, set[str]] = {}
        for row in fold.samples:
            splits_of.setdefault(row.group, set()).add(row.split)
        assert all(len(splits - {"excluded"}) <= 1 for splits in splits_of.values())
        assert splits_of["held"] == {"excluded"}


def test_folds_are_reproducible_and_differ_between_seeds_and_acquisitions(table):
    first, repeated, other = (
        folds_by_acquisition(table, 5, seed, ("train", "val")) for seed in (7, 7, 8)
    )
    assert first == repeated
    assert len({fold.digest for fold in (*first.tables, *other.tables)}) == 4


def test_table_with_one_acquisition_is_refused(table):
    alone = replace(table, samples=tuple(s for s in table.samples if "small" in s.group))
    with pytest.raises(ConfigError, match=r": 1 acquisition\(s\).*set 1.22.*at least two"):
        folds_by_acquisition(alone, 5, 7, ("train", "val"))
