"""Contents of the output files of a run without times, so that equal runs can be compared."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from pyarrow import parquet
from pydicom import dcmread

_BLOCK = re.compile(r'<script type="([^"]+)" (class="row"|class="view"|id="end")>(.*)</script>')


def output_contents(output: Path) -> dict[str, Any]:
    """Content by file name: SHA-256 of pictures, identifiers of DICOM objects, rows of tables."""
    files = sorted(path for path in output.rglob("*") if path.is_file())
    return {path.relative_to(output).as_posix(): _content(path) for path in files}


def _content(path: Path) -> Any:
    if path.suffix == ".dcm":
        ds = dcmread(path)
        return [str(ds[k].value) for k in ("SOPInstanceUID", "SeriesInstanceUID", "InstanceNumber")]
    if path.suffix == ".png":
        return hashlib.sha256(path.read_bytes()).hexdigest()
    if path.suffix == ".parquet":
        return _without_times(parquet.read_table(path).to_pylist())
    text = path.read_text(encoding="utf-8")
    if path.name == "results.csv":
        rows = list(csv.DictReader(text.splitlines(keepends=True), strict=True))
        return [{k: v for k, v in row.items() if k != "elapsed_ms"} for row in rows]
    if path.name == "results.jsonl":
        assert text.endswith("\n")
        return [_without_times(json.loads(line)) for line in text.splitlines()]
    if path.name == "results.fhir.json":
        return _without_times(json.loads(text))
    if path.name == "report.html":
        assert text.endswith("</body>\n</html>\n")
        return [
            (about, block if kind == "text/plain" else _without_times(json.loads(block)))
            for kind, about, block in _BLOCK.findall(text)
        ]
    return text


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        times = {"elapsed_ms", "issued", "timestamp", "finished"}
        return {key: _without_times(one) for key, one in value.items() if key not in times}
    if isinstance(value, list):
        return [_without_times(one) for one in value]
    return value
