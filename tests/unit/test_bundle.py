import hashlib

import pytest
from bundles import GATE, standard_specs
from pydantic import ValidationError

from pipeline.bundle import METADATA_KEY, BundleSpec, Kind, Precision
from pipeline.errors import BundleError
from pipeline.weights.manifest import (
    Manifest,
    ManifestEntry,
    read_manifest,
    read_verified,
    write_manifest,
)


def spec_of(kind):
    return next(spec for spec in standard_specs() if spec.kind is kind)


def rebuilt(spec, **changes):
    return BundleSpec.model_validate({**spec.model_dump(), **changes})


def entry(**changes):
    values = {
        "name": "trunk", "kind": "trunk", "precision": "int8", "trunk": "0" * 64,
        "file": "trunk/int8.onnx", "sha256": "0" * 64, "size_bytes": 3,
    }  # fmt: skip
    return ManifestEntry.model_validate({**values, **changes})


def test_a_contract_survives_the_metadata():
    for spec in standard_specs():
        assert BundleSpec.from_metadata(spec.to_metadata(), "x.onnx") == spec


@pytest.mark.parametrize(
    ("metadata", "message"),
    [({}, "no 'fxpipe' metadata"), ({METADATA_KEY: "{}"}, "unreadable contract")],
)
def test_a_foreign_network_is_refused_by_name(metadata, message):
    with pytest.raises(BundleError, match=message) as caught:
        BundleSpec.from_metadata(metadata, "x.onnx")
    assert str(caught.value).startswith("x.onnx")


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (Kind.TRUNK, {"trunk": None}, "a trunk has a digest"),
        (Kind.REGION, {"trunk": None}, "names its trunk"),
        (Kind.REGION, {"temperature": (1.0,)}, "one value a label"),
        (Kind.REGION, {"route_thresholds": {"hand": 0.5}}, "route_thresholds has one value"),
        (Kind.FRACTURE, {"density": GATE}, "only a region stage has a density gate"),
        (Kind.REGION, {"density": {**GATE.model_dump(), "threshold": float("nan")}}, "threshold"),
        (Kind.FRACTURE, {"region": None}, "a fracture stage has a region"),
        (Kind.FRACTURE, {"default_point": "lucky"}, "default operating point"),
        (Kind.FRACTURE, {"temperature": (0.0,)}, "greater than 0"),
        (Kind.FRACTURE, {"trunk": "abc"}, "pattern"),
        (Kind.FRACTURE, {"author": "me"}, "not permitted"),
        (Kind.FRACTURE, {"members": {"a": "0" * 64, "b": "1" * 64}}, "takes members, and no trunk"),
        (Kind.FRACTURE, {"input": "members", "trunk": None}, "two members or more, found 0"),
        (
            Kind.FRACTURE,
            {"input": "members", "trunk": None, "members": {"a": "0" * 64}},
            "two members or more, found 1",
        ),
        (
            Kind.FRACTURE,
            {"input": "members", "trunk": None, "members": {"a": "0" * 64, "b": "c"}},
            "pattern",
        ),
        (
            Kind.FRACTURE,
            {
                "input": "members",
                "trunk": None,
                "members": {"fracture-elbow": "0" * 64, "b": "1" * 64},
            },
            "not its own member",
        ),
    ],
)
def test_an_incomplete_contract_cannot_be_built(kind, changes, message):
    with pytest.raises(ValidationError, match=message):
        rebuilt(spec_of(kind), **changes)


def test_an_unknown_operating_point_lists_the_known_ones():
    spec = spec_of(Kind.FRACTURE)
    assert spec.operating_point(None).name == spec.default_point
    with pytest.raises(BundleError, match="'lucky', wanted one of"):
        spec.operating_point("lucky")


@pytest.mark.parametrize("file", ["/etc/x", "../x.onnx", "a/../../x", "a\\..\\x"])
def test_a_file_outside_the_weights_folder_is_refused(file):
    with pytest.raises(ValidationError, match="leaves the weights folder"):
        entry(file=file)


def test_a_bundle_is_listed_once_a_precision():
    with pytest.raises(ValidationError, match="listed twice"):
        Manifest(bundles=(entry(), entry(file="other.onnx")))
    both = Manifest(bundles=(entry(), entry(precision="fp16", file="trunk/fp16.onnx")))
    assert both.precisions == (Precision.FP16, Precision.INT8)


def test_a_precision_counts_only_when_it_is_complete():
    head = entry(name="region", kind="region", file="region/int8.onnx")
    manifest = Manifest(bundles=(entry(), head, entry(precision="fp16", file="t16.onnx")))
    assert manifest.precisions == (Precision.INT8,)


def test_altered_cut_and_missing_files_are_refused(tmp_path):
    content = b"abc"
    digest = hashlib.sha256(content).hexdigest()
    listed = entry(file="x.onnx", sha256=digest)
    with pytest.raises(BundleError, match="cannot read"):
        read_verified(tmp_path, listed)
    (tmp_path / "x.onnx").write_bytes(content)
    assert read_verified(tmp_path, listed) == content
    for altered in (b"abd", b"ab", b"abcc"):
        (tmp_path / "x.onnx").write_bytes(altered)
        with pytest.raises(BundleError, match="the manifest lists"):
            read_verified(tmp_path, listed)


def test_a_manifest_is_written_whole_and_sorted(tmp_path):
    first, second = entry(), entry(name="region", kind="region", file="region/int8.onnx")
    write_manifest(tmp_path, {("trunk", Precision.INT8): first, ("region", Precision.INT8): second})
    assert [e.name for e in read_manifest(tmp_path).bundles] == ["region", "trunk"]
    assert [p.name for p in tmp_path.iterdir()] == ["manifest.json"]
    (tmp_path / "manifest.json").write_text('{"bundles": [')
    with pytest.raises(BundleError, match="invalid manifest"):
        read_manifest(tmp_path)
    with pytest.raises(BundleError, match="not found"):
        read_manifest(tmp_path / "nowhere")
