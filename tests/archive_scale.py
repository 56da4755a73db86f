"""Time and memory of plan, run and merge for growing archives of tiny files.

``python tests/archive_scale.py --files 10000`` plans and judges that many and twice as many files
with tiny networks, and merges a million rows; it prints seconds, and the most resident memory.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from tiny_networks import write_bundles

from pipeline.archive.chunk import DONE, FILES, results_of
from pipeline.archive.plan import write_plan

ROOT = Path(__file__).parents[1]
FOLDER_FILES = 1000
CHUNK_FILES = 512


def write_files(folder: Path, count: int) -> None:
    """Write an archive of copies of one tiny picture, a thousand in each folder."""
    folder.mkdir()
    picture = folder.with_suffix(".png")
    Image.fromarray(np.full((16, 16), 99, np.uint8)).save(picture)
    content = picture.read_bytes()
    for number in range(count):
        place = folder / f"{number // FOLDER_FILES:05d}"
        place.mkdir(exist_ok=True)
        (place / f"{number:07d}.png").write_bytes(content)


def fxpipe(*words: object) -> tuple[float, float]:
    """Run a command; return seconds, and the most resident memory in MB."""
    code = (
        "import resource, sys\n"
        "from pipeline.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print('memory', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)\n"
    )
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return time.perf_counter() - start, float(done.stdout.split("memory")[1])


def measured(folder: Path, count: int) -> dict[str, tuple[float, float]]:
    """Seconds and memory of planning and judging ``count`` files."""
    inputs, plan, output = folder / f"in{count}", folder / f"{count}.sqlite", folder / f"out{count}"
    write_files(inputs, count)
    weights = folder / "weights"
    run = (
        "run", "--plan", plan, "--output", output, "--weights", weights, "--quiet",
        "--set", "isolate=false", "--device", "cpu",
    )  # fmt: skip
    figures = {
        "plan": fxpipe("plan", "--input", inputs, "--output", plan, "--chunk", CHUNK_FILES),
        "run": fxpipe(*run),
        "run again": fxpipe(*run),
        "merge": fxpipe("merge", "--plan", plan, "--output", output, "--quiet"),
    }
    for path in (inputs, output):
        shutil.rmtree(path)
    return figures


def merged_rows(folder: Path, rows: int) -> tuple[float, float]:
    """Seconds and memory of merging copies of one finished chunk from 64 output folders."""
    source, chunks = folder / "one", -(-rows // CHUNK_FILES)
    write_files(source, CHUNK_FILES)
    plan, output = folder / "one.sqlite", folder / "one-out"
    fxpipe("plan", "--input", source, "--output", plan, "--chunk", CHUNK_FILES)
    fxpipe(
        "run", "--plan", plan, "--output", output, "--weights", folder / "weights", "--quiet",
        "--studies", "folder",
    )  # fmt: skip
    names = (source / f"{number}.png" for number in range(chunks * CHUNK_FILES))
    large = write_plan(folder / "large.sqlite", source, names, CHUNK_FILES)
    model = results_of(output, 0)
    done = json.loads((model / DONE).read_bytes())
    done["about"]["plan"] = large.digest
    outputs = [folder / f"shard{number}" for number in range(64)]
    for number in range(chunks):
        place = results_of(outputs[number * 64 // chunks], number)
        place.mkdir(parents=True)
        for name in FILES:
            shutil.copy(model / name, place)
        (place / DONE).write_text(json.dumps(done))
    found = fxpipe(
        "merge", "--plan", large.file, "--output", folder / "merged", "--quiet",
        *(word for one in outputs for word in ("--from", one)),
    )  # fmt: skip
    with (folder / "merged/results.jsonl").open("rb") as lines:
        assert sum(1 for _ in lines) == chunks * CHUNK_FILES
    return found


def lines(files: int, rows: int, folder: Path) -> Iterator[str]:
    """One line for each figure."""
    write_bundles(folder / "weights")
    small, large = measured(folder, files), measured(folder, 2 * files)
    for name, (seconds, memory) in small.items():
        twice_seconds, twice_memory = large[name]
        yield (
            f"{name}: {files} files {seconds:.2f} s, {memory:.0f} MB; {2 * files} files "
            f"{twice_seconds:.2f} s ({twice_seconds / seconds:.2f} x), {twice_memory:.0f} MB"
        )
    seconds, memory = merged_rows(folder, rows)
    yield f"merge of 64 shards: {rows} rows {seconds:.1f} s, {memory:.0f} MB"


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for line in lines(given.files, given.rows, Path(folder)):
            print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
