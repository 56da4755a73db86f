"""Studies in several chunks: their combined table equals that of one run."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from pipeline.archive.study_parts import StudyPartsWriter, write_studies
from pipeline.domain import ImageRef
from pipeline.outcome import FractureCall, HeaderEffect, OperatingPoint, Outcome, RegionCall, Status
from pipeline.report.studies_table import StudiesWriter

POINTS = {"hand": OperatingPoint("balanced", 0.6, 0.4)}


def outcomes(folder: Path, count: int) -> list[Outcome]:
    """Outcomes of all kinds of about 30 studies, in random order."""
    rng = random.Random(0)
    return [_outcome(rng, folder / f"{number}.png") for number in range(count)]


def _outcome(rng: random.Random, path: Path) -> Outcome:
    image = ImageRef(path, rng.choice([None, 0, 3]), "0" * 64)
    study = rng.choice([None, *(f"study {n}, =formula" for n in range(30))])
    status = rng.choice(list(Status))
    if status is not Status.OK:
        return Outcome(image, status, error="unreadable", study=study)
    regions = rng.sample(["hand", "elbow", "shoulder"], rng.randint(1, 3))
    probabilities = dict.fromkeys(["elbow", "hand", "shoulder"], 0.1) | dict.fromkeys(regions, 0.9)
    call = RegionCall(
        probabilities, dict.fromkeys(probabilities, 0.5), header_effect=HeaderEffect.NOTHING
    )
    findings = tuple(
        FractureCall(
            region, "fracture", rng.choice([0.2, 0.5, 0.8]),
            OperatingPoint("balanced", 0.5, 0.3), far=rng.random() < 0.2,
        )
        for region in regions
    )  # fmt: skip
    return Outcome(image, status, call, findings, study=study)


def single_run(path: Path, written: list[Outcome], root: Path) -> bytes | None:
    with StudiesWriter(path, root, POINTS, bom=True) as writer:
        for one in written:
            writer.write(one)
    return path.read_bytes() if path.exists() else None


@pytest.mark.parametrize("chunk", [1, 7, 100, 1000])
def test_table_equals_that_of_one_run(tmp_path, chunk):
    written = outcomes(tmp_path, 400)
    parts = []
    for start in range(0, len(written), chunk):
        parts.append(tmp_path / f"{start}.jsonl")
        with StudyPartsWriter(parts[-1], tmp_path) as writer:
            for one in written[start : start + chunk]:
                writer.write(one)
    count = write_studies(tmp_path / "merged.csv", parts, POINTS, tmp_path, bom=True)
    assert count == 30
    expected = single_run(tmp_path / "single.csv", written, tmp_path)
    assert (tmp_path / "merged.csv").read_bytes() == expected
    assert not list(tmp_path.glob(".studies-*"))


def test_without_studies_an_older_table_is_removed(tmp_path):
    (tmp_path / "part").write_text("")
    (tmp_path / "studies.csv").write_text("older")
    assert write_studies(tmp_path / "studies.csv", [tmp_path / "part"], POINTS, tmp_path) == 0
    assert not (tmp_path / "studies.csv").exists()


def test_interrupted_chunk_writes_no_part(tmp_path):
    (tmp_path / "part").write_text("older")
    writer = StudyPartsWriter(tmp_path / "part", tmp_path)
    writer.write(outcomes(tmp_path, 1)[0])
    writer.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert not (tmp_path / "part").exists()
