"""How commands end with a closed or full stdout or stderr, or on a signal."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from bundles import write_png
from command_line import run_python
from signal_handling import as_in_the_foreground
from tiny_networks import write_bundles

ROOT = Path(__file__).parents[2]
FXPIPE = "from pipeline.cli import main; main()"
# Runs every command in one process, with its help as a long output.
ALL_COMMANDS = """
import os, sys
import click
from pipeline.cli import main
codes = []
names = main.list_commands(click.Context(main))
for words in (["--help"], ["--version"], ["schema"], *([name, "--help"] for name in names)):
    try:
        main(words)
    except SystemExit as end:
        codes.append(f"{words[0]} {end.code}")
sys.stderr.write(";".join(codes))
"""

if sys.platform == "win32":
    pytest.skip("needs POSIX", allow_module_level=True)


def closed_pipe() -> int:
    """Descriptor for writing to a pipe without a reader."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def codes(stderr: str) -> set[str]:
    """Exit codes that ALL_COMMANDS prints."""
    return {one.split()[-1] for one in stderr.splitlines()[-1].split(";")}


def test_closed_stdout_causes_no_traceback():
    writing = closed_pipe()
    try:
        result = run_python(ALL_COMMANDS, stdout=writing)
    finally:
        os.close(writing)
    assert result.returncode == 0
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert codes(result.stderr) == {"0"}


def test_command_continues_with_a_closed_stdout(tmp_path):
    writing = closed_pipe()
    words = ("doctor", "--weights", str(tmp_path / "none"))
    try:
        result = run_python(FXPIPE, *words, stdout=writing)
    finally:
        os.close(writing)
    assert (result.returncode, result.stderr) == (3, "")  # doctor found a fault


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_full_disk_for_stdout_exits_3_with_a_message():
    with Path("/dev/full").open("w") as full:
        result = run_python(ALL_COMMANDS, stdout=full)
    lines = result.stderr.splitlines()
    assert codes(result.stderr) == {"3"}
    assert set(lines[:-1]) == {"error: stdout: cannot be written: No space left on device"}
    assert "Traceback" not in result.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_unwritable_stderr_changes_no_exit_code():
    with Path("/dev/full").open("w") as full:
        assert run_python(FXPIPE, "run", "--nonsense", stderr=full).returncode == 2


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


def test_run_stopped_during_a_write_ends_all_threads(tmp_path):
    write_bundles(tmp_path / "weights")
    for n in range(40):
        write_png(tmp_path / f"in/{n:02}.png", {"hand": 0.9}, {"hand": 0.9})
    words = ["run", "--input", str(tmp_path / "in"), "--weights", str(tmp_path / "weights")]
    words += ["--output", str(tmp_path / "out"), "--device", "cpu", "--quiet"]
    with as_in_the_foreground():
        result = run_python(STOPPED_WHILE_WRITING, *words)
    assert result.returncode == 143, result.stderr
    assert "the same command resumes from there" in result.stderr


def test_command_without_stdout_succeeds():
    code = f"import os; os.close(1); {FXPIPE}"
    result = run_python(f"import sys; sys.stdout = None; {code}", "schema")
    assert (result.returncode, result.stderr) == (0, "")


def test_signals_in_a_background_suite_are_those_of_the_foreground():
    child = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        in_background = run_python(child).stdout
        with as_in_the_foreground():
            in_foreground = run_python(child).stdout
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert (in_background.strip(), in_foreground.strip()) == ("False", "True")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_killed_command_has_written_all_lines_to_stderr(unbuffered):
    script = """
import os, signal, sys
from pipeline.cli._streams import handle_stream_errors
with handle_stream_errors():
    sys.stderr.write("warning: one\\n")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    result = run_python(script, env={"PYTHONUNBUFFERED": unbuffered})
    assert (result.returncode, result.stderr) == (-signal.SIGKILL, "warning: one\n")
