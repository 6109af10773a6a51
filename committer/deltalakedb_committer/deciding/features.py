"""Table features: which ones a schema and properties call for, what protocol lists them, and which we cannot write."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from deltalakedb.actions import Protocol
from deltalakedb.delta_types import StructType, fields_in, types_in
from deltalakedb.features import ICT, READER_FEATURES

from .rules import Rules

NEW_TABLE = frozenset({"appendOnly", "invariants", "inCommitTimestamp"})
"""What every new table lists. All three are harmless to readers."""

ROW_TRACKING = "delta.enableRowTracking"
MAPPING_MODE = "delta.columnMapping.mode"
FEATURE_PREFIX = "delta.feature."

_DEPENDS = {"rowTracking": "domainMetadata", "clustering": "domainMetadata"}
_BY_PROPERTY = {
    "delta.appendOnly": "appendOnly",
    "delta.enableChangeDataFeed": "changeDataFeed",
    "delta.enableDeletionVectors": "deletionVectors",
    ICT: "inCommitTimestamp",
    ROW_TRACKING: "rowTracking",
    "delta.enableTypeWidening": "typeWidening",
    "delta.enableVariantShredding": "variantShredding",
    "delta.enableIcebergCompatV1": "icebergCompatV1",
    "delta.enableIcebergCompatV2": "icebergCompatV2",
    "delta.enableIcebergCompatV3": "icebergCompatV3",
    "delta.enableIcebergWriterCompatV1": "icebergWriterCompatV1",
    "delta.enableIcebergWriterCompatV3": "icebergWriterCompatV3",
}
BOOLEAN_PROPERTIES = frozenset(_BY_PROPERTY)
_BY_TYPE = {"timestamp_ntz": "timestampNtz", "variant": "variantType"}


def needed(schema: StructType, configuration: Mapping[str, str]) -> set[str]:
    """The features that a schema and properties call for."""
    found = {feature for name, feature in _BY_PROPERTY.items() if configuration.get(name) == "true"}
    if configuration.get(MAPPING_MODE, "none") != "none":
        found.add("columnMapping")
    if configuration.get("delta.checkpointPolicy") == "v2":
        found.add("v2Checkpoint")
    found |= {_BY_TYPE[name] for name in types_in(schema) if name in _BY_TYPE}
    if any("delta.typeChanges" in column.metadata for column in fields_in(schema)):
        found.add("typeWidening")
    found |= expressions(schema, configuration)
    return with_dependencies(found)


def expressions(schema: StructType, configuration: Mapping[str, str]) -> set[str]:
    """The features in real use whose expressions a writer has to evaluate for every row, which we cannot."""
    found = {"checkConstraints" for name in configuration if name.startswith("delta.constraints.")}
    for column in fields_in(schema):
        for key in column.metadata:
            if key == "delta.invariants":
                found.add("invariants")
            elif key == "delta.generationExpression":
                found.add("generatedColumns")
            elif key.startswith("delta.identity."):
                found.add("identityColumns")
            elif key == "CURRENT_DEFAULT":
                found.add("allowColumnDefaults")
    return found


def with_dependencies(features: Iterable[str]) -> set[str]:
    """`features` and those that they cannot be without."""
    found = set(features)
    return found | {_DEPENDS[name] for name in found if name in _DEPENDS}


def unwritable(
    features: Iterable[str], schema: StructType, configuration: Mapping[str, str], rules: Rules
) -> str | None:
    """The first feature, by name, that keeps us from writing such a table; None if nothing does."""
    unknown = {name for name in features if name not in rules.reader_features and name not in rules.writer_features}
    return min(unknown | expressions(schema, configuration), default=None)


def protocol_of(features: Iterable[str]) -> Protocol:
    """The protocol that lists exactly `features`: readers have to know about it only if one of them concerns them."""
    writer = tuple(sorted(set(features)))
    reader = tuple(name for name in writer if name in READER_FEATURES)
    return Protocol(
        min_reader_version=3 if reader else 1,
        min_writer_version=7,
        reader_features=reader or None,
        writer_features=writer,
    )


def protocol_problem(protocol: Protocol) -> str | None:
    """What is wrong with a protocol action by itself, or None."""
    reader, writer = protocol.min_reader_version, protocol.min_writer_version
    if not 1 <= reader <= 3 or not 1 <= writer <= 7:
        return f"versions ({reader}, {writer}) are none that exist"
    if reader == 3 and writer != 7:
        return "reader version 3 goes only with writer version 7"
    if (protocol.reader_features is not None) != (reader == 3):
        return "readerFeatures are given if and only if the reader version is 3"
    if (protocol.writer_features is not None) != (writer == 7):
        return "writerFeatures are given if and only if the writer version is 7"
    missing = set(protocol.reader_features or ()) - set(protocol.writer_features or ())
    if missing:
        return f"{min(missing)} is a reader feature and not among writerFeatures"
    wrong = [
        name
        for name in protocol.writer_features or ()
        if name in READER_FEATURES and reader == 3 and name not in (protocol.reader_features or ())
    ]
    if wrong:
        return f"{wrong[0]} concerns readers and is not among readerFeatures"
    return None
