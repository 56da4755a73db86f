"""``fxpipe weights``: verification, packing, and installation that keeps the old weights."""

from __future__ import annotations

import ctypes
import hashlib
import json
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from bundles import spec, standard_specs
from click.testing import CliRunner
from tiny_networks import write_bundles
from tools import need
from weights_commands import pack, run

from pipeline.bundle import Kind, Precision
from pipeline.cli import main
from pipeline.config import RunConfig
from pipeline.runtime.session import load_bundles
from pipeline.weights import pack as packing
from pipeline.weights.manifest import files_in

HEX = "0" * 64


def unsupported(*_):
    """Replaces ``ctypes.CDLL`` on a system that cannot exchange two folders atomically."""
    raise OSError


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FXPIPE_WEIGHTS", raising=False)
    Path("weights/trunk").mkdir(parents=True)
    Path("weights/README.md").write_text("# Weights\n")
    Path("weights/trunk/README.md").write_text("# Trunk\n")
    write_bundles(tmp_path / "weights")
    Path("weights/backup~").write_text("not listed")
    return tmp_path


def tree(folder):
    return {name: (Path(folder) / name).read_bytes() for name in files_in(Path(folder))}


def rewrite_pack(change, compression=zipfile.ZIP_STORED):
    """Write the pack again with changed members."""
    with zipfile.ZipFile("w.zip") as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile("w.zip", "w", compression) as archive:
        for name, content in change(members):
            archive.writestr(name, content)


def test_list_shows_every_bundle(place):
    result = run("list", "--json")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert [row["name"] for row in rows][-1] == "trunk"
    hand = next(row for row in rows if row["name"] == "fracture-hand")
    assert hand["points"] == ["balanced", "specific"]
    assert (hand["trained_on"], hand["kind"]) == ("painted", "fracture")
    assert "fracture-hand" in run("list").stdout


def test_verify_reports_its_checks(place):
    result = run("verify")
    assert result.exit_code == 0, result.output
    assert "5 bundles and 2 documents" in result.stdout
    assert "fp32: 5 bundle(s) opened on the CPU; compatible" in result.stdout
    assert result.stderr == "warning: backup~: not in the manifest, so it is never opened\n"


def test_cards_add_documents_to_the_manifest(place):
    for contract in standard_specs():
        Path("weights", contract.name).mkdir(exist_ok=True)
    assert CliRunner().invoke(main, ["cards"]).exit_code == 0
    assert (
        "5 bundles and 6 documents" in run("verify").stdout
    )  # one card for each bundle, and README.md
    Path("weights/NOTICE.md").write_text("Mine.\n")
    assert "NOTICE.md: not in the manifest" in run("verify").stderr
    assert CliRunner().invoke(main, ["cards"]).exit_code == 0
    Path("weights/NOTICE.md").write_text("Hers.\n")
    refused = run("verify")
    assert (refused.exit_code, "`fxpipe cards`" in refused.stderr) == (3, True)
    assert CliRunner().invoke(main, ["cards"]).exit_code == 0
    assert run("verify").exit_code == 0


def test_verify_opens_incomplete_precisions_too(place):
    specs = standard_specs()
    whole = [s.model_copy(update={"precision": Precision.INT8}) for s in specs[:2]]
    shutil.rmtree("weights")
    write_bundles(place / "weights", [*specs, *whole])
    result = run("verify")
    assert result.exit_code == 0, result.output
    assert "int8: 2 bundle(s) opened on the CPU; not used" in result.stdout


@pytest.mark.parametrize("file", ["README.md", "manifest.json", "trunk-fp32.onnx"])
def test_verify_refuses_an_altered_folder(place, file):
    path = place / "weights" / file
    path.write_bytes(path.read_bytes().replace(b"e", b"a", 1))
    result = run("verify")
    assert result.exit_code == 3
    assert f"error: weights/{file}: " in result.stderr
    assert "hint: " in result.stderr


def test_verify_refuses_a_head_for_another_trunk(place):
    write_bundles(place / "odd", [*standard_specs()[:3], spec("fracture-hand", Kind.FRACTURE, trunk="b" * 64)])  # noqa: E501  # fmt: skip
    result = run("verify", "--weights", "odd")
    assert result.exit_code == 3
    assert "belongs to trunk bbbbbbbbbbbb" in result.stderr


def test_pack_is_reproducible_and_installs_all_files(place):
    pack("a.zip")
    for path in Path("weights").rglob("*"):
        path.touch()
    pack("b.zip")
    assert Path("a.zip").read_bytes() == Path("b.zip").read_bytes()
    result = run("install", "a.zip", "--to", "new/weights")
    assert result.exit_code == 0, result.output
    files = tree("weights")
    del files["backup~"]
    assert tree("new/weights") == files
    assert [p.name for p in Path("new").iterdir()] == ["weights"]
    load_bundles(Path("new/weights"), RunConfig(device="cpu"))


@pytest.mark.parametrize("atomic", [True, False])
def test_old_weights_are_replaced_only_on_request(place, monkeypatch, atomic):
    if not atomic:
        monkeypatch.setattr(ctypes, "CDLL", unsupported)
    pack()
    before = tree("weights")
    result = run("install", "w.zip")
    assert result.exit_code == 2
    assert "--replace" in result.stderr
    assert tree("weights") == before
    assert run("install", "w.zip", "--replace").exit_code == 0
    assert "backup~" not in tree("weights")
    assert sorted(p.name for p in place.iterdir()) == ["w.zip", "weights"]


@pytest.mark.parametrize(
    ("module", "function"), [(packing, "sync"), (packing, "check_all"), (Path, "chmod")]
)
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_interrupted_installation_keeps_the_old_weights(
    place, monkeypatch, module, function, error
):
    pack()
    before = tree("weights")

    def fail(*_):
        raise error(28, "No space left on device")

    monkeypatch.setattr(module, function, fail)
    result = run("install", "w.zip", "--replace")
    assert result.exit_code == (130 if error is KeyboardInterrupt else 2)
    assert tree("weights") == before
    assert sorted(p.name for p in place.iterdir()) == ["w.zip", "weights"]


def test_failed_rename_restores_the_old_weights(place, monkeypatch):
    pack()
    before = tree("weights")
    real = Path.rename

    def rename(self, target):
        if ".new-" in self.name:
            raise OSError(1, "Operation not permitted")
        return real(self, target)

    monkeypatch.setattr(ctypes, "CDLL", unsupported)
    monkeypatch.setattr(Path, "rename", rename)
    assert run("install", "w.zip", "--replace").exit_code == 2
    assert tree("weights") == before


def test_folder_with_other_files_is_never_replaced(place):
    pack()
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("years of work")
    result = run("install", "w.zip", "--to", "mine", "--replace")
    assert result.exit_code == 2
    assert "other files than weights" in result.stderr
    assert Path("mine/thesis.txt").exists()


def flipped(members):
    return [(n, c[:-1] + bytes([c[-1] ^ 1]) if n == "region-fp32.onnx" else c) for n, c in members]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (flipped, "region-fp32.onnx: sha256 is"),
        (lambda m: [*m, ("../evil.txt", b"x")], "manifest and content differ"),
        (lambda m: [*m, ("more.txt", b"x")], "'more.txt'"),
        (lambda m: m[1:], "differ: 'README.md'"),
        (lambda m: [(n, c) for n, c in m if n != "manifest.json"], "no manifest.json"),
        (lambda m: [(n, b"{}" if n == "manifest.json" else c) for n, c in m], "invalid manifest"),
        (
            lambda m: [(n, b" " * (2 << 20) if n == "manifest.json" else c) for n, c in m],
            "manifest.json: found 2097152 bytes",
        ),
        (lambda m: [(n, c + b"x" if n == "README.md" else c) for n, c in m], "README.md: found 11"),
    ],
)
def test_pack_that_differs_from_its_manifest_is_refused(place, change, message):
    pack()
    rewrite_pack(change)
    result = run("install", "w.zip", "--to", "new")
    assert result.exit_code == 3, result.output
    assert message in result.stderr
    assert sorted(p.name for p in place.iterdir()) == ["w.zip", "weights"]


def test_compressed_pack_is_refused_without_decompression(place):
    pack()
    rewrite_pack(lambda m: [*m, ("bomb", b"\0" * 10_000_000)], zipfile.ZIP_DEFLATED)
    result = run("install", "w.zip", "--to", "new")
    assert result.exit_code == 3
    assert "compressed" in result.stderr


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\5\6" + b"\0" * 18])
def test_other_files_are_refused(place, content):
    Path("x.zip").write_bytes(content)
    result = run("install", "x.zip", "--to", "new")
    assert result.exit_code == 3, result.output
    assert "fxpipe weights pack" in result.stderr


def test_truncated_packs_are_refused(place):
    pack()
    content = Path("w.zip").read_bytes()
    for size in range(0, len(content), len(content) // 40):
        Path("w.zip").write_bytes(content[:size])
        result = run("install", "w.zip", "--to", "new")
        assert result.exit_code == 3, (size, result.output)
    assert not Path("new").exists()


def test_digest_of_the_pack_is_checked(place):
    pack()
    wrong = run("install", "w.zip", "--to", "new", "--sha256", HEX)
    assert (wrong.exit_code, "expected 0000" in wrong.stderr) == (3, True)
    assert run("install", "w.zip", "--to", "new", "--sha256", "abc").exit_code == 2
    digest = hashlib.sha256(Path("w.zip").read_bytes()).hexdigest()
    right = run("install", Path("w.zip").absolute().as_uri(), "--to", "new", "--sha256", digest)
    assert right.exit_code == 0, right.output
    assert run("install", "nowhere.zip", "--to", "other").exit_code == 2


@pytest.fixture
def keys(place):
    pytest.importorskip("cryptography")
    openssl = need("openssl")
    for name in ("ours", "theirs"):
        words = ["genpkey", "-algorithm", "ed25519", "-out", f"{name}.pem"]
        subprocess.run([openssl, *words], check=True, capture_output=True)
        words = ["pkey", "-in", f"{name}.pem", "-pubout", "-out", f"{name}.pub.pem"]
        subprocess.run([openssl, *words], check=True, capture_output=True)
    return place


def test_signature_is_checked_with_a_trusted_key(keys):
    pack("signed.zip", "--sign", "ours.pem")
    pack("again.zip", "--sign", "ours.pem")
    pack("plain.zip")
    assert Path("signed.zip").read_bytes() == Path("again.zip").read_bytes()
    good = run("install", "signed.zip", "--to", "a", "--trust", "ours.pub.pem")
    assert good.exit_code == 0, good.output
    assert "manifest.sig" not in tree("a")
    assert run("install", "signed.zip", "--to", "b").exit_code == 0
    other = run("install", "signed.zip", "--to", "c", "--trust", "theirs.pub.pem")
    assert (other.exit_code, "does not match" in other.stderr) == (3, True)
    plain = run("install", "plain.zip", "--to", "c", "--trust", "ours.pub.pem")
    assert (plain.exit_code, "not signed" in plain.stderr) == (3, True)
    assert not Path("c").exists()


def test_signature_of_other_weights_is_refused(keys):
    pack("w.zip", "--sign", "ours.pem")
    with zipfile.ZipFile("w.zip") as archive:
        signature = archive.read("manifest.sig")
    write_bundles(keys / "weights", standard_specs()[:4])
    pack("w.zip")
    rewrite_pack(lambda m: [*m, ("manifest.sig", signature)])
    result = run("install", "w.zip", "--to", "c", "--trust", "ours.pub.pem")
    assert result.exit_code == 3
    assert "does not match" in result.stderr


def test_invalid_signing_keys_are_reported(keys):
    for words in (
        ("pack", "--output", "w.zip", "--sign", "ours.pub.pem"),
        ("pack", "--output", "w.zip", "--sign", "nowhere.pem"),
    ):
        result = run(*words)
        assert result.exit_code == 2, result.output
        assert "error: " in result.stderr
    assert not Path("w.zip").exists()


def test_missing_extra_for_signing_is_reported(place, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "cryptography", None)
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    Path("k.pem").write_text("x")
    for name in list(sys.modules):
        if name.startswith("cryptography."):
            monkeypatch.setitem(sys.modules, name, None)
    result = run("pack", "--output", "w.zip", "--sign", "k.pem")
    assert result.exit_code == 3, result.output
    assert 'pip install "fxpipe[sign]"' in result.stderr
    assert not Path("w.zip").exists()
