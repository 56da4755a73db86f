"""A weights folder that was changed anywhere is never run."""

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
    """Two precisions, of which int8 is used, and documents."""
    folder = tmp_path_factory.mktemp("weights")
    specs = standard_specs()
    specs += [s.model_copy(update={"precision": Precision.INT8}) for s in specs]
    (folder / "region").mkdir()
    for name in ("README.md", "NOTICE.md", "tried.json", "region/README.md"):
        (folder / name).write_text(f'["{name}", "some words"]\n', encoding="utf-8")
    return write_bundles(folder, specs)


def test_every_flipped_byte_is_found(both):
    dice = random.Random(7)
    files = sorted(files_in(both))
    assert len(files) == 15
    for turn in range(FLIPS):
        path = both / files[turn % len(files)]
        content = path.read_bytes()
        place = dice.randrange(len(content))
        changed = bytearray(content)
        changed[place] ^= dice.randrange(1, 256)
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
@pytest.mark.parametrize("change", ["gone", "cut", "longer", "folder"])
def test_every_listed_file_is_wanted_whole(both, file, change):
    path = both / file
    content = path.read_bytes()
    path.unlink()
    if change == "folder":
        path.mkdir()
    elif change != "gone":
        path.write_bytes(content[:-1] if change == "cut" else content + b"\n")
    try:
        with pytest.raises(BundleError, match=file) as caught:
            load_bundles(both, CPU)
    finally:
        if path.is_dir():
            path.rmdir()
        path.write_bytes(content)
    assert ("cards" in caught.value.hint) is not file.endswith(".onnx")


def test_a_known_fault_opens_no_further_network(both, monkeypatch):
    opened = []
    real = session.open_session
    path = both / "README.md"
    content = path.read_bytes()
    path.write_bytes(b"")

    def slow(*words):
        opened.append(words[-1])
        time.sleep(0.3)
        return real(*words)

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
    (tmp_path / "later.md").write_text("written by hand")
    load_bundles(tmp_path, CPU)
    assert unlisted(tmp_path, read_manifest(tmp_path)) == ["README.md~", "later.md", "old.onnx"]
    refresh_manifest(tmp_path)
    manifest = read_manifest(tmp_path)
    assert unlisted(tmp_path, manifest) == ["README.md~", "old.onnx"]
    assert [listed.file for listed in manifest.documents] == ["later.md"]


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="needs links")
@pytest.mark.parametrize("inside", [True, False])
def test_a_link_may_not_leave_the_folder(tmp_path, inside):
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
    """Change the manifest as somebody would who can compute its digest too."""
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
def test_a_manifest_that_asks_for_too_much_is_refused(tmp_path, change, message):
    write_bundles(tmp_path)
    resealed(tmp_path, change)
    with pytest.raises(BundleError, match=message) as caught:
        load_bundles(tmp_path, CPU)
    assert caught.value.hint


def test_a_manifest_of_the_first_version_says_what_to_do(tmp_path):
    (tmp_path / "manifest.json").write_text('{"schema_version": 1, "bundles": []}')
    with pytest.raises(BundleError, match="schema_version is 1") as caught:
        read_manifest(tmp_path)
    assert "fxpipe export" in caught.value.hint


@pytest.mark.parametrize("content", [b"", b"[" * 9999, b"\xff", b" " * (2 << 20), b'{"a": 1e999}'])
def test_what_is_no_manifest_is_refused(tmp_path, content):
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"expected|invalid"):
        read_manifest(tmp_path)


def listed_as(folder, content):
    """A folder in which a whole network stands as the region stage, digests and all."""
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


def own_function(model):
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
        (own_function, "a function defined in the file"),
        (newer, "found opset 9999, expected .* or less: ONNX Runtime"),
        (lambda m: m.ClearField("opset_import"), "found 1 graphs and opset None"),
        (lambda m: m.ClearField("graph"), "found 0 graphs"),
    ],
)
def test_what_no_export_writes_is_refused_before_it_is_opened(
    tmp_path, change, message, monkeypatch
):
    folder = listed_as(tmp_path, altered(change))
    real = session.open_session

    def guarded(content, device, threads, source):
        assert source != "region-fp32.onnx"
        return real(content, device, threads, source)

    monkeypatch.setattr(session, "open_session", guarded)
    with pytest.raises(BundleError, match=message) as caught:
        load_bundles(folder, CPU)
    assert str(caught.value).startswith("region-fp32.onnx")


def test_an_import_that_no_operator_uses_is_harmless():
    model = altered(lambda m: m.opset_import.append(helper.make_opsetid("com.microsoft", 1)))
    assert screen(model, "x") == 17


def test_a_file_that_is_two_formats_at_once_is_refused():
    whole = network(spec("region", Kind.REGION))
    disguised = b"\x12\x06..ORTM" + whole  # a producer name, for protobuf
    onnx.load_from_string(disguised)
    with pytest.raises(BundleError, match="ORT format"):
        screen(disguised, "x")
    open_session(disguised, "cpu", 1, "x")  # and it is read as ONNX, come what may


def deep(levels):
    inner = helper.make_graph([], "g", [], [])
    for _ in range(levels):
        node = helper.make_node("If", ["x"], ["z"])
        node.attribute.append(helper.make_attribute("then_branch", inner))
        inner = helper.make_graph([node], "g", [], [])
    model = helper.make_model(inner, opset_imports=[helper.make_opsetid("", 17)])
    return bytes(model.SerializeToString())


def test_hostile_bytes_end_in_a_refusal_and_soon():
    whole = network(spec("region", Kind.REGION))
    dice = random.Random(3)
    for _ in range(300):
        changed = bytearray(whole[: dice.randrange(len(whole) + 1)])
        for _ in range(dice.randrange(4)):
            if changed:
                changed[dice.randrange(len(changed))] = dice.randrange(256)
        with suppress(BundleError):  # many a flip leaves a valid file
            screen(bytes(changed), "x")
    for hostile in (
        b"", b"\xff" * 64, b"\x3a" + b"\xff" * 9 + b"\x01", b"\x3b", b"\x02\x00", deep(30),
        b"\x3a\xfe\xff\xff\xff\x0f", b"\x3d\0",
    ):  # fmt: skip
        with pytest.raises(BundleError, match="expected"):
            screen(hostile, "x")


def test_endless_fields_are_given_up(monkeypatch):
    monkeypatch.setattr("pipeline.weights.onnx_screen.MAX_FIELDS", 1000)
    with pytest.raises(BundleError, match="more than 1000 fields"):
        screen(b"\x08\x01" * 2000, "x")
