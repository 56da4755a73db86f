"""The door of the house: help is quick, whole, and imports nothing heavy."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

import pipeline.cli
from pipeline import errors
from pipeline.cli import _COMMANDS, main
from pipeline.cli._extras import needs

ROOT = Path(__file__).parents[2]


def python(code: str, cwd: Path = ROOT, path: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(path), "COLUMNS": "80"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("command", _COMMANDS)
def test_every_command_has_help(command):
    result = python(f"from pipeline.cli import main; main([{command!r}, '--help'])")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("Usage:")
    assert result.stderr == ""


def test_help_imports_nothing_heavy_and_is_quick():
    heavy = {"numpy", "pydantic", "rich", "onnxruntime", "PIL", "torch", "onnx"}
    code = (
        "import sys; from pipeline.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        f"print('heavy:', sorted({heavy!r} & set(sys.modules)))"
    )
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        result = python(code)
        seconds.append(time.perf_counter() - started)
    assert result.stdout.endswith("heavy: []\n"), result.stderr
    for command, words in _COMMANDS.items():
        assert command in result.stdout
        assert words in result.stdout
    assert min(seconds) < 0.4


def test_version():
    result = CliRunner().invoke(main, ["--version"])
    assert result.exit_code == 0
    assert result.output.startswith("fxpipe ")


def test_an_unknown_command_is_2():
    result = CliRunner().invoke(main, ["ruin"])
    assert result.exit_code == 2
    assert "ruin" in result.stderr


@pytest.mark.parametrize("package", ["stages"])
def test_a_foreign_package_of_our_name_is_refused(tmp_path, package):
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text("")
    result = python(
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from pipeline.cli import main; "
        "main(['run', '--input', 'x'])",
    )
    assert result.returncode == 3, result.stderr
    assert f"{package!r} at {tmp_path}" in result.stderr
    assert "hint:" in result.stderr


def command_that(raises: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise raises

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
    command_that(error, monkeypatch)
    assert CliRunner().invoke(main, ["run", "--input", "x"]).exit_code == code


def test_an_unexpected_exception_keeps_its_traceback(monkeypatch):
    command_that(ZeroDivisionError("a fault of ours"), monkeypatch)
    result = CliRunner().invoke(main, ["run", "--input", "x"])
    assert isinstance(result.exception, ZeroDivisionError)


def test_a_missing_extra_says_what_to_install():
    with pytest.raises(errors.MissingExtraError, match="no_such_thing") as caught, needs("train"):
        import no_such_thing.deep  # noqa: F401
    assert caught.value.hint == 'pip install "fxpipe[train]"'
    assert caught.value.exit_code == 3


def test_a_missing_module_of_our_own_is_a_fault_and_stays_one():
    with pytest.raises(ModuleNotFoundError, match="no_such_part"), needs("train"):
        import pipeline.no_such_part  # noqa: F401
