"""Table features by name: which concern readers, which an old protocol implies, and our own writer fence."""

from __future__ import annotations

from typing import Final

from .actions import Protocol

FENCE_FEATURE: Final = "deltalakedb-fence"
"""The private name in `writerFeatures` that keeps foreign writers from our tables. Readers do not look at it."""

READER_FEATURES: Final = frozenset(
    {
        "catalogManaged",
        "columnMapping",
        "deletionVectors",
        "timestampNtz",
        "typeWidening",
        "typeWidening-preview",
        "v2Checkpoint",
        "vacuumProtocolCheck",
        "variantShredding",
        "variantShredding-preview",
        "variantType",
        "variantType-preview",
    }
)
"""Features that readers must know too; all others concern writers only."""

READABLE: Final = READER_FEATURES - {"catalogManaged"}
"""Those of tables whose log tells all there is. Of what a catalog manages, the newest commits are elsewhere."""

ICT_FEATURE: Final = "inCommitTimestamp"
ICT: Final = "delta.enableInCommitTimestamps"
"""The property that switches in-commit timestamps on."""

_LEGACY: Final = {
    "appendOnly": 2,
    "invariants": 2,
    "checkConstraints": 3,
    "changeDataFeed": 4,
    "generatedColumns": 4,
    "columnMapping": 5,
    "identityColumns": 6,
}


def listed(protocol: Protocol) -> frozenset[str]:
    """Every feature that a protocol stands for, those implied by an old version number included."""
    if protocol.min_writer_version >= 7:
        return frozenset((*(protocol.writer_features or ()), *(protocol.reader_features or ())))
    implied = {name for name, version in _LEGACY.items() if version <= protocol.min_writer_version}
    return frozenset(implied | set(protocol.reader_features or ()))
