"""The command group: fast and complete help, few imports, exit codes and missing packages."""

from __future__ import annotations

import re
import time
from importlib import import_module

import click
import pytest
from click.testing import CliRunner
from command_line import run_python

import pipeline.cli
from pipeline import errors
from pipeline.cli import main
from pipeline.cli._extras import needs

COMMANDS = main.list_commands(click.Context(main))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command):
    result = run_python("from pipeline.cli import main; main()", command, "--help")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("Usage:")
    assert result.stderr == ""


def test_help_is_fast_and_imports_no_large_package():
    large = {"numpy", "pydantic", "rich", "onnxruntime", "PIL", "torch", "onnx"}
    code = (
        "import sys; from pipeline.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        f"print('large:', sorted({large!r} & set(sys.modules)))"
    )
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        result = run_python(code, env={"COLUMNS": "80"})
        seconds.append(time.perf_counter() - started)
    assert result.stdout.endswith("large: []\n"), result.stderr
    listed = result.stdout.partition("Commands:\n")[2]
    assert re.findall(r"^  ([\w-]+) +\w", listed, re.MULTILINE) == COMMANDS
    assert min(seconds) < 0.4


def test_version():
    result = CliRunner().invoke(main, ["--version"])
    assert result.exit_code == 0
    assert result.output.startswith("fxpipe ")


def test_unknown_command_exits_2():
    result = CliRunner().invoke(main, ["ruin"])
    assert result.exit_code == 2
    assert "ruin" in result.stderr


@pytest.mark.parametrize("package", ["stages"])
def test_other_package_with_the_same_name_is_refused(tmp_path, package):
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text("")
    result = run_python(
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from pipeline.cli import main; "
        "main(['run', '--input', 'x'])",
    )
    assert result.returncode == 3, result.stderr
    assert f"{package!r} at {tmp_path}" in result.stderr
    assert "hint:" in result.stderr


def let_commands_raise(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every command raise this exception."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(pipeline.cli, "check_packages", fail)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.IndexFaultsError("index.csv", ["a", "b"]), 1),
        (errors.ExportRefusedError("x"), 1),
        (errors.ConfigError("x"), 2),
        (errors.DeviceError("x"), 3),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_codes(error, code, monkeypatch):
    let_commands_raise(error, monkeypatch)
    assert CliRunner().invoke(main, ["run", "--input", "x"]).exit_code == code


def test_unexpected_exception_keeps_its_traceback(monkeypatch):
    let_commands_raise(ZeroDivisionError("a fault of ours"), monkeypatch)
    result = CliRunner().invoke(main, ["run", "--input", "x"])
    assert isinstance(result.exception, ZeroDivisionError)


def test_missing_extra_is_reported():
    with pytest.raises(errors.MissingExtraError, match="no_such_thing") as caught, needs("train"):
        import_module("no_such_thing.deep")
    assert caught.value.hint == 'pip install "fxpipe[train]"'
    assert caught.value.exit_code == 3


def test_missing_module_of_fxpipe_is_not_reported_as_an_extra():
    with pytest.raises(ModuleNotFoundError, match="no_such_part"), needs("train"):
        import_module("pipeline.no_such_part")
