"""Input from an object store: the rows of the same files in a local folder."""

from __future__ import annotations

import shutil
import tempfile

import boto3  # type: ignore[import-untyped]
import pytest
from bundles import write_png
from command_line import after_rows, fxpipe
from moto.server import ThreadedMotoServer
from run_outputs import output_contents

OPTIONS = (
    "--device", "cpu", "--heatmaps", "all", "--report", "--parquet", "--set", "isolate=false",
)  # fmt: skip
URL = "s3://bucket/export/"
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore.*")


@pytest.fixture(scope="module")
def server():
    """An S3 server."""
    running = ThreadedMotoServer(port=0, verbose=False)
    running.start()
    yield "http://{}:{}".format(*running.get_host_and_port())
    running.stop()


@pytest.fixture
def place(place, server, monkeypatch):
    """A working folder with weights, a folder of files of many kinds, and a bucket with them."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "user")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setattr(tempfile, "tempdir", str(place / "temporary"))
    (place / "temporary").mkdir()
    for i in range(12):
        name = f"patient0000{i % 3}/study{i % 2}_positive/image{i}.png"
        write_png(place / "export" / name, {"hand": 0.9}, {"hand": 0.08 * i})
    write_png(place / "export/a/1.png", {"hand": 0.9}, {"hand": 0.9})
    write_png(place / "export/a.png", {"hand": 0.9}, {"hand": 0.9})
    write_png(place / "export/\u00e9 =x+#%41.png", {"hand": 0.9}, {"hand": 0.9})
    (place / "export/a-text.txt").write_text("no picture")
    (place / "export/a/broken.png").write_bytes((place / "export/a.png").read_bytes()[:60])
    client = boto3.client("s3")
    client.create_bucket(Bucket="bucket")
    for path in (place / "export").rglob("*"):
        if path.is_file():
            client.upload_file(str(path), "bucket", str(path.relative_to(place)))
    client.put_object(Bucket="bucket", Key="export/a/")  # how some tools store a folder
    yield place
    boto3.resource("s3").Bucket("bucket").objects.all().delete()


def run(source: str, output: str):
    return fxpipe("run", "--input", source, "--output", output, *OPTIONS)


def test_rows_equal_those_of_the_local_folder(place):
    local, remote = run("export", "local"), run(URL, "remote")
    assert (local.exit_code, remote.exit_code) == (1, 1), remote.output
    assert "17 in all" in remote.stdout
    assert output_contents(place / "remote") == output_contents(place / "local")
    assert list((place / "temporary").iterdir()) == []


def test_run_is_resumed(place):
    def fail() -> None:
        raise RuntimeError

    with after_rows(9, fail), pytest.raises(RuntimeError):
        run(URL, "remote")
    result = run(URL, "remote")
    assert "resuming the unfinished run in remote: 7 files done" in result.stderr
    run("export", "local")
    assert output_contents(place / "remote") == output_contents(place / "local")


def test_few_files_are_on_the_disk_at_the_same_time(place, monkeypatch):
    for i in range(60):
        shutil.copy(place / "export/a.png", place / f"export/a/{i:02}.png")
        boto3.client("s3").upload_file(
            str(place / "export/a.png"), "bucket", f"export/a/{i:02}.png"
        )
    most = 0

    def count() -> None:
        nonlocal most
        most = max(most, sum(path.is_file() for path in (place / "temporary").rglob("*")))

    with after_rows(40, count):
        run(URL, "remote")
    assert 0 < most <= 40
    assert len((place / "remote/results.jsonl").read_text().splitlines()) == 77


def test_file_that_cannot_be_fetched_gets_a_failed_row(place, monkeypatch):
    from s3fs import S3FileSystem  # type: ignore[import-untyped]

    fetch = S3FileSystem._get_file

    async def refuse(self, source, *words, **more):
        if source.endswith("image5.png"):
            raise PermissionError("denied")
        return await fetch(self, source, *words, **more)

    monkeypatch.setattr(S3FileSystem, "_get_file", refuse)
    result = run(URL, "remote")
    assert result.exit_code == 1
    assert "image5.png: cannot be fetched: denied" in result.stderr
    rows = (place / "remote/results.csv").read_text().splitlines()
    assert len(rows) == 18
    assert ",failed," in next(row for row in rows if "image5.png" in row)


def test_results_of_fxpipe_are_left_out(place):
    run("export", "local")
    for path in (place / "local").rglob("*"):
        if path.is_file():
            key = f"export/earlier/{path.relative_to(place / 'local')}"
            boto3.client("s3").upload_file(str(path), "bucket", key)
    assert "17 in all" in run(URL, "remote").stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("s3://bucket/missing/",), "s3://bucket/missing/: not found"),
        (("s3://other/",), "s3://other/"),
        (("nothing://x/y",), "nothing://x/y"),
        ((URL, "--input", "export"), "expected a URL alone"),
    ],
)
def test_wrong_urls_are_refused(place, words, message):
    result = fxpipe("run", "--input", *words)
    assert result.exit_code == 2
    assert message in result.stderr
