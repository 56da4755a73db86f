"""Plans, chunks and merges: the results of a single run, whatever was stopped or changed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from bundles import write_png
from click.testing import Result
from command_line import after_rows, fxpipe
from run_outputs import output_contents

from pipeline.archive.chunk import DONE, results_of
from pipeline.lock import exclusive

OPTIONS = ("--studies", "folder", "--heatmaps", "all", "--set", "isolate=false")
PICTURES, CHUNK = 20, 3


@pytest.fixture
def place(place) -> Path:
    """A working folder with weights, pictures of five studies, a text, and a plan of 7 chunks."""
    for i in range(PICTURES):
        write_png(place / f"in/{i % 5}/{i}.png", {"hand": 0.9}, {"hand": 0.02 + 0.05 * i})
    (place / "in" / "notes.txt").write_text("no picture")
    result = plan()
    assert result.exit_code == 0
    assert "plan.sqlite: 21 files in chunks 0-6" in result.stdout
    return place


def plan(*arguments: object) -> Result:
    return fxpipe("plan", "--input", "in", "--chunk", CHUNK, *arguments)


def run(*arguments: object, output: str = "results") -> Result:
    return fxpipe(
        "run", "--plan", "plan.sqlite", "--device", "cpu", "--output", output, *OPTIONS, *arguments
    )


def merge(*arguments: object, output: str = "results") -> Result:
    return fxpipe("merge", "--plan", "plan.sqlite", "--output", output, *arguments)


def merged_equals_a_single_run(output: str = "results") -> bool:
    whole = fxpipe(
        "run", "--input", "in", "--device", "cpu", "--output", "whole", *OPTIONS, "--parquet"
    )
    assert whole.exit_code == 0, whole.output
    merged = output_contents(Path(output))
    merged = {name: value for name, value in merged.items() if not name.startswith("chunks/")}
    return merged == output_contents(Path("whole"))


@pytest.mark.parametrize("shards", [1, 3, 7])
def test_merged_shards_equal_a_single_run(place, shards):
    for number in range(shards, 0, -1):
        assert run("--shard", f"{number}/{shards}", output=f"out{number}").exit_code == 0
    folders = [word for n in range(1, shards + 1) for word in ("--from", f"out{n}")]
    result = merge(*folders, "--parquet")
    assert result.exit_code == 0, result.output
    assert "21 in all" in result.stdout
    assert "5 studies" in result.stdout
    assert merged_equals_a_single_run()


def test_interrupted_chunk_is_resumed(place):
    with after_rows(10, fail), pytest.raises(RuntimeError):
        run()
    unfinished = list(Path("results").glob("chunks/*/unfinished"))
    assert len(unfinished) == 1
    result = run()
    assert result.exit_code == 0, result.output
    assert "4 judged, 3 finished before" in result.stdout
    assert merge("--parquet").exit_code == 0
    assert merged_equals_a_single_run()


def test_finished_chunks_are_not_judged_again(place):
    run("--chunks", "0-3,5")
    before = {path: path.stat().st_mtime_ns for path in Path("results").rglob("results.csv")}
    assert len(before) == 5
    assert "2 judged, 5 finished before" in run("--verify").stdout
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert "7 judged, 0 finished before" in run("--restart").stdout


def fail() -> None:
    raise RuntimeError


def touch(path: Path) -> None:
    os.utime(path, ns=(1, 1))


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("change", [touch, grow, remove])
def test_chunk_with_a_changed_file_is_judged_again(place, change):
    run()
    change(place / "in/0/10.png")
    result = run()
    assert "1 judged, 6 finished before" in result.stdout
    assert "chunk 0 is judged again: 0/10.png has changed" in result.stderr
    assert "1 file has changed since the plan was made, such as 0/10.png" in result.stderr
    assert merge().exit_code == (1 if change is remove else 0)
    assert "0/10.png" in Path("results/results.csv").read_text()


@pytest.mark.parametrize("name", ["results.csv", "results.jsonl", "studies.jsonl"])
def test_chunk_with_a_changed_result_is_judged_again(place, name):
    run()
    grow(results_of(Path("results"), 2) / name)
    assert name == "studies.jsonl" or "has changed" in merge().stderr
    result = run()
    assert "1 judged, 6 finished before" in result.stdout
    assert f"chunk 2 is judged again: {name} has changed" in result.stderr


def test_missing_overlay_is_made_again(place):
    run()
    next(Path("results").glob("chunks/000001/results/heatmaps/*")).unlink()
    result = run()
    assert "1 judged, 6 finished before" in result.stdout
    assert "is missing" in result.stderr


def test_other_content_of_the_same_size_and_time_is_found_by_verify(place):
    run()
    path = place / "in/0/10.png"
    before, content = path.stat(), path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert "0 judged, 7 finished before" in run().stdout
    refused = merge("--verify")
    assert refused.exit_code == 2
    assert "chunk 0: 0/10.png has other content" in refused.stderr
    result = run("--verify")
    assert "1 judged, 6 finished before" in result.stdout
    assert "0/10.png has other content" in result.stderr


def test_unfinished_chunks_are_named(place):
    run("--chunks", "1,3-5")
    result = merge()
    assert result.exit_code == 2
    assert "3 of 7 chunks are not finished: 0,2,6" in result.stderr
    assert not Path("results/results.csv").exists()


def test_chunk_of_another_process_is_left_to_it(place):
    folder = results_of(Path("results"), 4).parent
    folder.mkdir(parents=True)
    with exclusive(folder):
        result = run()
    assert result.exit_code == 0
    assert "6 judged, 0 finished before" in result.stdout
    assert "left to other processes: 4" in result.stdout
    assert "1 judged, 6 finished before" in run().stdout


def test_another_configuration_is_refused(place):
    run()
    result = run("--operating-point", "specific")
    assert result.exit_code == 2
    assert "operating_point: was unset, now specific" in result.stderr
    run("--operating-point", "specific", "--restart", "--chunks", "6")
    result = merge()
    assert result.exit_code == 2
    assert "judged with another configuration" in result.stderr


def test_chunks_of_another_plan_are_refused(place):
    run()
    grow(place / "in/0/10.png")
    assert plan().exit_code == 0
    for result in (run(), merge()):
        assert result.exit_code == 2
        assert "another configuration" in result.stderr
        assert "plan: was" in result.stderr


def test_folder_may_be_elsewhere(place):
    run("--chunks", "0-2")
    shutil.copytree("in", "moved", copy_function=shutil.copy2)
    shutil.rmtree("in")
    assert "found" in run("--chunks", "3").stderr
    assert "4 judged, 3 finished before" in run("--root", "moved").stdout
    assert merge("--root", "moved").exit_code == 0
    assert Path("results/results.csv").read_text().count("\n") == 22


def test_plan_is_the_same_for_the_same_files(place):
    first = Path("plan.sqlite").read_bytes()
    assert plan().exit_code == 0
    assert Path("plan.sqlite").read_bytes() == first


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--input", "in"), "found --input and --plan"),
        (("--chunks", "7"), "expected 0 to 6"),
        (("--chunks", "3-1"), "the lower number first"),
        (("--chunks", "x"), "expected 17, 17-40 or 3,7-9"),
        (("--shard", "0/3"), "such as 2/7"),
        (("--shard", "1/3", "--chunks", "1"), "expected one of them"),
        (("--report",), "--report is not possible with --plan"),
        (("--parquet",), "--parquet is not possible with --plan"),
        (("--fhir",), "--fhir is not possible with --plan"),
        (("--dicom-out", "objects"), "--dicom-out is not possible with --plan"),
    ],
)
def test_wrong_options_are_refused(place, words, message):
    result = run(*words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not Path("results").exists()


@pytest.mark.parametrize("words", [("--chunks", "1"), ("--shard", "1/2"), ("--verify",)])
def test_options_for_chunks_need_a_plan(place, words):
    result = fxpipe("run", "--input", "in", *words)
    assert result.exit_code == 2
    assert "needs --plan" in result.stderr


@pytest.mark.parametrize("name", ["plan.sqlite", "other"])
def test_other_files_are_no_plans(place, name):
    if name != "other":
        Path(name).write_bytes(b"no plan")
    result = fxpipe("run", "--plan", name)
    assert result.exit_code == 2
    assert name in result.stderr


def test_plan_among_the_originals_is_refused(place):
    result = plan("--output", "in/plan.sqlite")
    assert result.exit_code == 2
    assert "in the input folder" in result.stderr


def test_record_of_a_newer_version_is_not_trusted(place):
    run("--chunks", "0")
    done = results_of(Path("results"), 0) / DONE
    done.write_text(done.read_text().replace('"schema": 1', '"schema": 2'))
    assert "1 judged, 0 finished before" in run("--chunks", "0").stdout
