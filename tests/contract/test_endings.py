"""How every command ends where stdout, stderr or a signal is not as usual."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from bundles import write_bundles, write_png
from signal_handling import as_in_the_foreground

ROOT = Path(__file__).parents[2]
FXPIPE = "from pipeline.cli import main; main()"
# Every command in one process: each prints its help, as much as any of them prints at once.
ALL_COMMANDS = """
import os, sys
from pipeline.cli import _COMMANDS, main
told = []
for words in (["--help"], ["--version"], ["schema"], *([name, "--help"] for name in _COMMANDS)):
    try:
        main(words)
    except SystemExit as leave:
        told.append(f"{words[0]} {leave.code}")
sys.stderr.write(";".join(told))
"""

if sys.platform == "win32":
    pytest.skip("made of what POSIX has", allow_module_level=True)


def python(code: str, *words: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        check=False,
        **options,
    )


def closed_pipe() -> int:
    """The end to write to of a pipe that nobody reads any more."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def codes(stderr: str) -> set[str]:
    return {one.split()[-1] for one in stderr.splitlines()[-1].split(";")}


def test_whoever_has_read_enough_ends_no_command_in_a_traceback():
    writing = closed_pipe()
    try:
        result = python(ALL_COMMANDS, stdout=writing, stderr=subprocess.PIPE)
    finally:
        os.close(writing)
    assert result.returncode == 0
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert codes(result.stderr) == {"0"}


def test_the_work_goes_on_when_nobody_reads_what_it_prints(tmp_path):
    writing = closed_pipe()
    words = ("doctor", "--weights", str(tmp_path / "none"))
    try:
        result = python(FXPIPE, *words, stdout=writing, stderr=subprocess.PIPE)
    finally:
        os.close(writing)
    assert (result.returncode, result.stderr) == (3, "")  # the doctor's own code: a fault


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_under_stdout_is_3_with_a_message_for_every_command():
    with Path("/dev/full").open("w") as full:
        result = python(ALL_COMMANDS, stdout=full, stderr=subprocess.PIPE)
    lines = result.stderr.splitlines()
    assert codes(result.stderr) == {"3"}
    assert set(lines[:-1]) == {"error: stdout: cannot be written: No space left on device"}
    assert "Traceback" not in result.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_message_that_nobody_gets_changes_no_exit_code():
    with Path("/dev/full").open("w") as full:
        assert python(FXPIPE, "run", "--nonsense", stderr=full).returncode == 2


STOPPED_WHILE_WRITING = """
import os, signal, sys
from pipeline.cli import main
from pipeline.report.csv_table import CsvWriter
write, count = CsvWriter.write, 0
def stopped(self, outcome):
    global count
    count += 1
    if count == 3:
        os.kill(os.getpid(), signal.SIGTERM)
    write(self, outcome)
CsvWriter.write = stopped
main(sys.argv[1:])
"""


def test_a_run_that_is_stopped_while_it_writes_leaves_no_thread_at_work(tmp_path):
    write_bundles(tmp_path / "weights")
    for n in range(40):
        write_png(tmp_path / f"in/{n:02}.png", {"hand": 0.9}, {"hand": 0.9})
    words = ["run", "--input", str(tmp_path / "in"), "--weights", str(tmp_path / "weights")]
    words += ["--output", str(tmp_path / "out"), "--device", "cpu", "--quiet"]
    with as_in_the_foreground():
        result = python(STOPPED_WHILE_WRITING, *words, capture_output=True)
    assert result.returncode == 143, result.stderr
    assert "the same command resumes from there" in result.stderr


def test_without_a_stdout_there_is_nothing_to_print():
    code = f"import os; os.close(1); {FXPIPE}"
    result = python(f"import sys; sys.stdout = None; {code}", "schema", stderr=subprocess.PIPE)
    assert (result.returncode, result.stderr) == (0, "")


def test_a_suite_in_the_background_has_the_signals_of_one_in_the_foreground():
    child = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        ignored = python(child, stdout=subprocess.PIPE).stdout
        with as_in_the_foreground():
            wanted = python(child, stdout=subprocess.PIPE).stdout
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert (ignored.strip(), wanted.strip()) == ("False", "True")
