"""Bundle contracts and the manifest of a weights folder."""

import hashlib
import json

import pytest
from bundles import GATE, contract, spec, standard_specs
from pydantic import ValidationError

from pipeline.bundle import METADATA_KEY, Kind, Precision, read_contract
from pipeline.errors import BundleError
from pipeline.weights.manifest import (
    Manifest,
    ManifestEntry,
    read_manifest,
    read_verified,
    write_manifest,
)

TYPES = {"labels": ["a", "b"], "activation": "softmax", "temperature": [1.0, 1.0], "bias": [0, 0]}


def spec_of(kind):
    members = {"fracture-elbow": "0" * 64, "fracture-hand": "1" * 64}
    both = spec("both", Kind.ENSEMBLE, region="hand", members=members)
    return next(valid for valid in [*standard_specs(), both] if valid.kind is kind)


def rebuilt(valid, **changes):
    return contract({**valid.model_dump(), **changes})


def entry(**changes):
    values = {
        "name": "trunk", "kind": "trunk", "precision": "int8", "trunk": "0" * 64,
        "file": "trunk/int8.onnx", "sha256": "0" * 64, "size_bytes": 3,
    }  # fmt: skip
    return ManifestEntry.model_validate({**values, **changes})


def test_contract_is_restored_from_metadata():
    for valid in standard_specs():
        assert read_contract(valid.to_metadata(), "x.onnx") == valid


OLD = {
    "members": {}, "labels": [], "heatmap": True, "region": None, "target": None,
    "temperature": [], "bias": [], "route_thresholds": {}, "density": None,
    "operating_points": {}, "default_point": None, "study_points": {}, "closer": None,
    "trunk": None,
}  # fmt: skip
"""Fields of every contract of schema 2, regardless of its kind."""


@pytest.mark.parametrize("kind", [Kind.TRUNK, Kind.REGION, Kind.FRACTURE, Kind.ENSEMBLE])
def test_contract_of_an_older_schema_is_read(kind):
    spec = spec_of(kind)
    values = {**OLD, **spec.model_dump(mode="json"), "schema_version": 2}
    values.pop("types", None)
    if kind is Kind.ENSEMBLE:
        values["kind"] = "fracture"
    restored = read_contract({METADATA_KEY: json.dumps(values)}, "x.onnx")
    assert restored == spec.changed(schema_version=2)
    assert read_contract(restored.to_metadata(), "x.onnx") == restored


def test_used_field_of_another_kind_in_an_old_contract_is_refused():
    values = {**OLD, **spec_of(Kind.TRUNK).model_dump(mode="json"), "schema_version": 2}
    values["route_thresholds"] = {"hand": 0.5}
    with pytest.raises(BundleError, match="route_thresholds"):
        read_contract({METADATA_KEY: json.dumps(values)}, "x.onnx")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [({}, "no 'fxpipe' metadata"), ({METADATA_KEY: "{}"}, "unreadable contract")],
)
def test_network_without_a_contract_is_refused(metadata, message):
    with pytest.raises(BundleError, match=message) as caught:
        read_contract(metadata, "x.onnx")
    assert str(caught.value).startswith("x.onnx")


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (Kind.TRUNK, {"trunk": None}, "trunk"),
        (Kind.TRUNK, {"labels": ("fracture",)}, "not permitted"),
        (Kind.REGION, {"trunk": None}, "must name its trunk"),
        (Kind.REGION, {"temperature": (1.0,)}, "one value per label"),
        (Kind.REGION, {"route_thresholds": {"hand": 0.5}}, "route_thresholds must have one value"),
        (Kind.FRACTURE, {"density": GATE}, "not permitted"),
        (Kind.REGION, {"density": {**GATE.model_dump(), "threshold": float("nan")}}, "threshold"),
        (Kind.FRACTURE, {"region": None}, "fracture.region"),
        (Kind.FRACTURE, {"labels": ("fracture", "dislocation")}, "at most 1 item"),
        (Kind.FRACTURE, {"default_point": "unknown"}, "default operating point"),
        (Kind.FRACTURE, {"temperature": (0.0,)}, "greater than 0"),
        (Kind.FRACTURE, {"trunk": "abc"}, "pattern"),
        (Kind.FRACTURE, {"author": "me"}, "not permitted"),
        (Kind.FRACTURE, {"members": {"a": "0" * 64, "b": "1" * 64}}, "not permitted"),
        (Kind.FRACTURE, {"types": {**TYPES, "labels": ["a", "a"]}}, "listed twice"),
        (Kind.FRACTURE, {"types": {**TYPES, "bias": [0.0]}}, "one value per type"),
        (
            Kind.FRACTURE,
            {"types": {**TYPES, "labels": ["a"], "temperature": [1.0], "bias": [0.0]}},
            "at least two types",
        ),
        (Kind.ENSEMBLE, {"members": {}}, "at least 2 items"),
        (Kind.ENSEMBLE, {"members": {"a": "0" * 64}}, "at least 2 items"),
        (Kind.ENSEMBLE, {"members": {"a": "0" * 64, "b": "c"}}, "pattern"),
        (Kind.ENSEMBLE, {"members": {"both": "0" * 64, "b": "1" * 64}}, "be its own member"),
        (Kind.ENSEMBLE, {"closer": None}, "not permitted"),
        (Kind.ENSEMBLE, {"kind": "vote"}, "does not match any of the expected tags"),
    ],
)
def test_invalid_contract_is_refused(kind, changes, message):
    with pytest.raises(ValidationError, match=message):
        rebuilt(spec_of(kind), **changes)


def test_unknown_operating_point_lists_the_available_ones():
    spec = spec_of(Kind.FRACTURE)
    assert spec.operating_point(None).name == spec.default_point
    with pytest.raises(BundleError, match="'unknown', expected one of"):
        spec.operating_point("unknown")


@pytest.mark.parametrize("file", ["/etc/x", "../x.onnx", "a/../../x", "a\\..\\x"])
def test_file_outside_the_weights_folder_is_refused(file):
    with pytest.raises(ValidationError, match="leaves the weights folder"):
        entry(file=file)


def test_bundle_is_listed_once_per_precision():
    with pytest.raises(ValidationError, match="listed twice"):
        Manifest(bundles=(entry(), entry(file="other.onnx")))
    both = Manifest(bundles=(entry(), entry(precision="fp16", file="trunk/fp16.onnx")))
    assert both.precisions == (Precision.FP16, Precision.INT8)


def test_incomplete_precision_is_not_available():
    head = entry(name="region", kind="region", file="region/int8.onnx")
    manifest = Manifest(bundles=(entry(), head, entry(precision="fp16", file="t16.onnx")))
    assert manifest.precisions == (Precision.INT8,)


def test_altered_truncated_and_missing_files_are_refused(tmp_path):
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


def test_manifest_is_sorted_and_written_atomically(tmp_path):
    first, second = entry(), entry(name="region", kind="region", file="region/int8.onnx")
    write_manifest(tmp_path, {("trunk", Precision.INT8): first, ("region", Precision.INT8): second})
    assert [e.name for e in read_manifest(tmp_path).bundles] == ["region", "trunk"]
    assert [p.name for p in tmp_path.iterdir()] == ["manifest.json"]
    (tmp_path / "manifest.json").write_text('{"bundles": [')
    with pytest.raises(BundleError, match="invalid manifest"):
        read_manifest(tmp_path)
    with pytest.raises(BundleError, match="not found"):
        read_manifest(tmp_path / "missing")
