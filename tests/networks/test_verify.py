"""Verification of weights folders: any change is found before a network runs."""

from __future__ import annotations

import hashlib
import json
import os
import random
import time
from contextlib import suppress

import onnx
import pytest
from bundles import spec, standard_specs
from onnx import TensorProto, helper
from tiny_networks import network, write_bundles

from pipeline.bundle import Kind, Precision
from pipeline.config import RunConfig
from pipeline.errors import BundleError
from pipeline.runtime import session
from pipeline.runtime.providers import open_session
from pipeline.runtime.session import load_bundles
from pipeline.weights.manifest import files_in, read_manifest, refresh_manifest
from pipeline.weights.onnx_screen import screen
from pipeline.weights.verify import unlisted

CPU = RunConfig(device="cpu", intra_op_threads=1)
FLIPS = 150


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A folder with two precisions, of which runs use int8, and with documents."""
    folder = tmp_path_factory.mktemp("weights")
    specs = standard_specs()
    specs += [s.model_copy(update={"precision": Precision.INT8}) for s in specs]
    (folder / "region").mkdir()
    for name in ("README.md", "NOTICE.md", "tried.json", "region/README.md"):
        (folder / name).write_text(f'["{name}", "text"]\n', encoding="utf-8")
    return write_bundles(folder, specs)


def test_every_changed_byte_is_detected(both):
    rng = random.Random(7)
    files = sorted(files_in(both))
    assert len(files) == 15
    for flip in range(FLIPS):
        path = both / files[flip % len(files)]
        content = path.read_bytes()
        place = rng.randrange(len(content))
        changed = bytearray(content)
        changed[place] ^= rng.randrange(1, 256)
        path.write_bytes(bytes(changed))
        try:
            with pytest.raises(BundleError) as caught:
                load_bundles(both, CPU)
        finally:
            path.write_bytes(content)
        assert str(path) in str(caught.value), (path, place)
        assert caught.value.exit_code == 3
    load_bundles(both, CPU)


@pytest.mark.parametrize(
    "file", ["README.md", "tried.json", "region-fp32.onnx", "region-int8.onnx"]
)
@pytest.mark.parametrize("change", ["missing", "truncated", "longer", "folder"])
def test_missing_or_changed_file_is_refused(both, file, change):
    path = both / file
    content = path.read_bytes()
    path.unlink()
    if change == "folder":
        path.mkdir()
    elif change != "missing":
        path.write_bytes(content[:-1] if change == "truncated" else content + b"\n")
    try:
        with pytest.raises(BundleError, match=file) as caught:
            load_bundles(both, CPU)
    finally:
        if path.is_dir():
            path.rmdir()
        path.write_bytes(content)
    assert ("cards" in caught.value.hint) is not file.endswith(".onnx")


def test_no_further_network_is_opened_after_a_fault(both, monkeypatch):
    opened = []
    path = both / "README.md"
    content = path.read_bytes()
    path.write_bytes(b"")

    def slow(*arguments):
        opened.append(arguments[-1])
        time.sleep(0.3)
        return open_session(*arguments)

    monkeypatch.setattr(session, "open_session", slow)
    try:
        with pytest.raises(BundleError, match="found 0 bytes"):
            load_bundles(both, CPU)
    finally:
        path.write_bytes(content)
    assert len(opened) < 5


def test_unlisted_files_do_not_stop_a_run(tmp_path):
    write_bundles(tmp_path)
    (tmp_path / "README.md~").write_text("a backup")
    (tmp_path / "old.onnx").write_bytes(b"never opened")
    (tmp_path / "later.md").write_text("a document")
    load_bundles(tmp_path, CPU)
    assert unlisted(tmp_path, read_manifest(tmp_path)) == ["README.md~", "later.md", "old.onnx"]
    refresh_manifest(tmp_path)
    manifest = read_manifest(tmp_path)
    assert unlisted(tmp_path, manifest) == ["README.md~", "old.onnx"]
    assert [listed.file for listed in manifest.documents] == ["later.md"]


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="needs links")
@pytest.mark.parametrize("inside", [True, False])
def test_link_out_of_the_folder_is_refused(tmp_path, inside):
    weights = write_bundles(tmp_path / "weights")
    file = weights / "region-fp32.onnx"
    moved = (weights if inside else tmp_path) / "moved.bin"
    file.rename(moved)
    file.symlink_to(moved)
    if inside:
        load_bundles(weights, CPU)
        return
    with pytest.raises(BundleError, match="a link that leaves the weights folder"):
        load_bundles(weights, CPU)


def resealed(folder, change):
    """Change the manifest and update its digest."""
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    del content["digest"]
    change(content)
    text = json.dumps(content, indent=2) + "\n"
    digest = hashlib.sha256(text.encode()).hexdigest()
    path.write_text(json.dumps({"digest": digest, **content}, indent=2) + "\n")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(schema_version=1), "schema_version is 1, expected 2"),
        (lambda c: c.update(schema_version=3), "schema_version is 3, expected 2"),
        (lambda c: c["bundles"][0].update(file="../x.onnx"), "leaves the weights folder"),
        (lambda c: c["bundles"][0].update(file="/x.onnx"), "leaves the weights folder"),
        (lambda c: c["bundles"][0].update(file="a//x.onnx"), "not a plain path"),
        (lambda c: c["bundles"][0].update(file="C:x.onnx"), "not a plain path"),
        (lambda c: c["bundles"][0].update(file="x.onnx\0"), "not a plain path"),
        (lambda c: c["bundles"][0].update(file="manifest.json"), "listed twice"),
        (lambda c: c["bundles"][0].update(file="Region-FP32.onnx"), "listed twice"),
        (lambda c: c["bundles"][0].update(size_bytes=0), "greater than 0"),
        (lambda c: c.update(author="me"), "not permitted"),
    ],
)
def test_manifest_with_invalid_entries_is_refused(tmp_path, change, message):
    write_bundles(tmp_path)
    resealed(tmp_path, change)
    with pytest.raises(BundleError, match=message) as caught:
        load_bundles(tmp_path, CPU)
    assert caught.value.hint


def test_error_for_an_old_manifest_has_a_hint(tmp_path):
    (tmp_path / "manifest.json").write_text('{"schema_version": 1, "bundles": []}')
    with pytest.raises(BundleError, match="schema_version is 1") as caught:
        read_manifest(tmp_path)
    assert "fxpipe export" in caught.value.hint


@pytest.mark.parametrize("content", [b"", b"[" * 9999, b"\xff", b" " * (2 << 20), b'{"a": 1e999}'])
def test_malformed_manifest_is_refused(tmp_path, content):
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"expected|invalid"):
        read_manifest(tmp_path)


def listed_as(folder, content):
    """A folder in which this file is the region stage, with matching digests."""
    write_bundles(folder)
    (folder / "region-fp32.onnx").write_bytes(content)

    def change(manifest):
        for entry in manifest["bundles"]:
            if entry["name"] == "region":
                digest = hashlib.sha256(content).hexdigest()
                entry.update(sha256=digest, size_bytes=len(content))

    resealed(folder, change)
    return folder


def altered(change):
    model = onnx.load_from_string(network(spec("region", Kind.REGION)))
    change(model)
    return bytes(model.SerializeToString())


def foreign(domain):
    def change(model):
        model.graph.node[0].domain = domain
        model.opset_import.append(helper.make_opsetid(domain, 1))

    return change


def nested(model):
    inner = helper.make_graph(
        [helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")], "g", [], []
    )
    node = helper.make_node("If", ["x"], ["z"])
    node.attribute.append(helper.make_attribute("then_branch", inner))
    model.graph.node.append(node)


def outside(model):
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def local_function(model):
    model.functions.append(
        helper.make_function("own", "F", ["x"], ["y"], [], [helper.make_opsetid("", 17)])
    )


def newer(model):
    model.opset_import[0].version = 9999


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (foreign("com.microsoft"), "operator 'Mul' of the domain 'com.microsoft'"),
        (foreign("evil"), "operator 'Mul' of the domain 'evil'"),
        (nested, "operator 'Gelu' of the domain 'com.microsoft'"),
        (outside, "external weights"),
        (local_function, "a function defined in the file"),
        (newer, "found opset 9999, expected .* or less: ONNX Runtime"),
        (lambda m: m.ClearField("opset_import"), "found 1 graphs and opset None"),
        (lambda m: m.ClearField("graph"), "found 0 graphs"),
    ],
)
def test_unexpected_graph_is_refused_before_it_is_opened(tmp_path, change, message, monkeypatch):
    folder = listed_as(tmp_path, altered(change))

    def guarded(content, device, threads, source):
        assert source != "region-fp32.onnx"
        return open_session(content, device, threads, source)

    monkeypatch.setattr(session, "open_session", guarded)
    with pytest.raises(BundleError, match=message) as caught:
        load_bundles(folder, CPU)
    assert str(caught.value).startswith("region-fp32.onnx")


def test_unused_opset_import_is_accepted():
    model = altered(lambda m: m.opset_import.append(helper.make_opsetid("com.microsoft", 1)))
    assert screen(model, "x") == 17


def test_file_with_ort_signature_is_refused():
    whole = network(spec("region", Kind.REGION))
    disguised = b"\x12\x06..ORTM" + whole  # protobuf: a producer name
    onnx.load_from_string(disguised)
    with pytest.raises(BundleError, match="ORT format"):
        screen(disguised, "x")
    open_session(disguised, "cpu", 1, "x")  # ONNX Runtime reads it as ONNX, not as ORT


def deep(levels):
    inner = helper.make_graph([], "g", [], [])
    for _ in range(levels):
        node = helper.make_node("If", ["x"], ["z"])
        node.attribute.append(helper.make_attribute("then_branch", inner))
        inner = helper.make_graph([node], "g", [], [])
    model = helper.make_model(inner, opset_imports=[helper.make_opsetid("", 17)])
    return bytes(model.SerializeToString())


def test_damaged_bytes_are_refused():
    whole = network(spec("region", Kind.REGION))
    rng = random.Random(3)
    for _ in range(300):
        changed = bytearray(whole[: rng.randrange(len(whole) + 1)])
        for _ in range(rng.randrange(4)):
            if changed:
                changed[rng.randrange(len(changed))] = rng.randrange(256)
        with suppress(BundleError):  # some changes leave a valid file
            screen(bytes(changed), "x")
    for hostile in (
        b"", b"\xff" * 64, b"\x3a" + b"\xff" * 9 + b"\x01", b"\x3b", b"\x02\x00", deep(30),
        b"\x3a\xfe\xff\xff\xff\x0f", b"\x3d\0",
    ):  # fmt: skip
        with pytest.raises(BundleError, match="expected"):
            screen(hostile, "x")


def test_number_of_fields_is_limited(monkeypatch):
    monkeypatch.setattr("pipeline.weights.onnx_screen.MAX_FIELDS", 1000)
    with pytest.raises(BundleError, match="more than 1000 fields"):
        screen(b"\x08\x01" * 2000, "x")
