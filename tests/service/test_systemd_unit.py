"""The systemd unit: validation by systemd, quoting, installation."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click import Context
from click.testing import CliRunner
from external_readers import need

from pipeline.cli import main
from pipeline.cli import service as command
from pipeline.service.systemd_unit import Unit, quoted

ACCOUNT = pwd.getpwuid(os.geteuid()).pw_name


def fxpipe(*words):
    return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)


@pytest.fixture
def places(tmp_path):
    """A data folder and weights with names that need quoting."""
    for name in ("data $HOME 100%", 'w "x"'):
        (tmp_path / name).mkdir()
    return tmp_path / "data $HOME 100%", tmp_path / 'w "x"'


def unit(places, *words):
    data, weights = places
    result = fxpipe("service", "print", "--data", data, "--weights", weights, *words)
    assert result.exit_code == 0, result.output
    return result.output


def test_systemd_accepts_the_unit(places, tmp_path):
    program = need("systemd-analyze")
    path = tmp_path / "fxpipe.service"
    path.write_text(unit(places, "--account", ACCOUNT, "--", "--watch", str(tmp_path)))
    done = subprocess.run(
        [program, "verify", "--man=no", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "fxpipe.service" not in done.stderr
    done = subprocess.run(
        [program, "security", "--offline=true", "--threshold=25", str(path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr  # an exposure of at most 2.5 of 10


def test_unit_has_minimal_rights(places):
    text = unit(places, "--", "--port", "8443")
    for line in ("NoNewPrivileges=yes", "ProtectSystem=strict", "PrivateDevices=yes",
                 "CapabilityBoundingSet=", "User=fxpipe", "UMask=0077"):  # fmt: skip
        assert line in text.splitlines()
    assert "PrivateDevices=no" in unit(places, "--gpu")
    assert "CAP_NET_BIND_SERVICE" in unit(places, "--", "--port", "443")
    of_user = unit(places, "--user")
    assert "User=" not in of_user
    assert "WantedBy=default.target" in of_user


def test_state_folder_and_homes_are_recognised():
    unit = Unit(["fxpipe"], Path("/var/lib/fxpipe"), "fxpipe")
    assert "StateDirectory=fxpipe" in unit.text()
    assert "ProtectHome=yes" in unit.text()
    unit = Unit(["fxpipe"], Path("/srv/x"), "fxpipe", (Path("/opt/fxpipe/venv"),))
    assert "ReadWritePaths=/srv/x" in unit.text()
    assert "ProtectHome=yes" in unit.text()
    unit = Unit(["fxpipe"], Path("/srv/x"), "fxpipe", (Path("/", "home", "anna", "venv"),))
    assert "ProtectHome=read-only" in unit.text()


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("/a/b-c_1", "/a/b-c_1"), ("a b", '"a b"'), ('a"b', '"a\\"b"'), ("a\\b", '"a\\\\b"'),
        ("100%", "100%%"), ("a'b", '"a\'b"'), ("", '""'), ("a;b", '"a;b"'),
    ],
)  # fmt: skip
def test_words_are_quoted(word, expected):
    assert quoted(word) == expected


def test_argument_cannot_add_a_line(places):
    result = fxpipe(
        "service", "print", "--data", "x\nExecStartPost=/bin/sh", "--weights", places[1]
    )
    assert result.exit_code == 2
    assert "control characters" in result.output
    result = fxpipe("service", "print", "--data", "x", "--account", "root\nUser=x")
    assert result.exit_code == 2


def test_options_of_serve_are_checked(places):
    result = fxpipe("service", "print", "--data", places[0], "--", "--no-such-option")
    assert result.exit_code == 2
    assert "--no-such-option" in result.output


def test_command_of_the_unit_is_parsed(places):
    (line,) = re.findall("^ExecStart=(.*)$", unit(places), re.MULTILINE)
    assert line.startswith(f"{sys.executable} -m pipeline.cli serve ")
    assert f'--data "{places[0]}"'.replace("%", "%%").replace("$", "$$") in line


def test_install_writes_the_unit_and_the_data_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "_SYSTEM", tmp_path / "units")
    words = ("service", "install", "--data", tmp_path / "data", "--weights", tmp_path)
    result = fxpipe(*words, "--account", ACCOUNT)
    assert result.exit_code == 0, result.output
    assert "systemctl daemon-reload && systemctl enable --now fxpipe" in result.output
    path = tmp_path / "units/fxpipe.service"
    assert f"User={ACCOUNT}" in path.read_text()
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
    assert fxpipe(*words, "--account", ACCOUNT).exit_code == 0  # repeated
    result = fxpipe(*words, "--account", ACCOUNT, "--gpu")
    assert result.exit_code == 2
    assert "other content" in result.output
    assert fxpipe(*words, "--account", ACCOUNT, "--gpu", "--force").exit_code == 0
    assert "PrivateDevices=no" in path.read_text()


def test_install_needs_an_account(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "_SYSTEM", tmp_path / "units")
    result = fxpipe(
        "service", "install", "--data", tmp_path / "data", "--account", "no-such-account"
    )  # fmt: skip
    assert result.exit_code == 2
    assert "useradd --system" in result.output
    assert not (tmp_path / "units").exists()


def test_install_for_the_current_user(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    result = fxpipe("service", "install", "--data", tmp_path / "data", "--user")
    assert result.exit_code == 0, result.output
    assert "systemctl --user enable" not in result.output.splitlines()[0]
    assert (tmp_path / "config/systemd/user/fxpipe.service").is_file()


def test_files_copied_into_the_image_exist():
    root = Path(__file__).parents[2]
    text = (root / "Containerfile").read_text(encoding="utf-8")
    sources = [
        word
        for line in re.findall("^COPY (?!--from)(.*)$", text, re.MULTILINE)
        for word in line.split()[:-1]
    ]
    assert {"pipeline", "stages", "weights", "pyproject.toml"} <= set(sources)
    assert all((root / source).exists() for source in sources)
    assert "USER 10001:10001" in text
    (words,) = re.findall(r"^ENTRYPOINT \[(.*)\]$", text, re.MULTILINE)
    options = re.findall('"(--[a-z-]+)"', words) + re.findall(
        '^CMD \\["(.*)"\\]', text, re.MULTILINE
    )
    serve = main.get_command(Context(main), "serve")
    known = {name for option in serve.params for name in option.opts}
    assert set(options) <= known
