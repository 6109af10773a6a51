"""Random imports that mean something: the next chunk or version of a log somewhere else, mostly right, sometimes not."""

from __future__ import annotations

import random

from deltalakedb.events import ImportedVersion
from deltalakedb.ids import import_txn_id
from tests import imports
from tests.imports import PROTOCOL, Body, info, metadata
from tests.model_lake import ModelLake, txn

NAMES = ("x", "y")
_PATHS = ("f1", "f2", "d%20/f1", "d /f1", "./f2", "file:///elsewhere/x/f1")


class Importer:
    """Makes events of two imports into a lake, from `chance` alone."""

    def __init__(self, lake: ModelLake, chance: random.Random) -> None:
        self._lake = lake
        self._chance = chance
        self._rest: list[ImportedVersion] = []

    def adopted(self) -> list[str]:
        """Names of the tables that anybody may write."""
        return [
            row["name"] for row in self._lake.rows["dl_tables"] if row["name"] in NAMES and row["state"] == "ACTIVE"
        ]

    def event(self) -> ImportedVersion:
        """The next chunk of what is under way, or the first one of another version."""
        if self._rest and self._maybe(0.85):
            return self._rest.pop(0 if self._maybe(0.9) else -1)
        name = self._chance.choice(NAMES)
        dropped = [r for r in self._lake.rows["dl_tables"] if r["name"] == name and r["state"] == "DROPPED"]
        import_id = txn(900 + NAMES.index(name) + 10 * len(dropped))
        rows = [row for row in self._lake.rows["dl_tables"] if row["table_id"] == import_id]
        version, kind = self._next(rows[0]["table_no"], rows[0]["first_version"]) if rows else self._begin()
        decided = {row["txn_id"] for row in self._lake.rows["dl_transactions"]}
        attempt = next(n for n in range(100) if import_txn_id(import_id, version, n) not in decided)
        first, *self._rest = imports.version(
            version,
            *self._chunks(kind, version),
            kind=kind,
            attempt=attempt,
            import_id=import_id,
            table_name=name,
            location=f"file:///elsewhere/{name}",
        )
        return first

    def _begin(self) -> tuple[int, str]:
        return self._chance.choice([(0, "COMMIT"), (0, "COMMIT"), (5, "BASELINE"), (3, "HISTORY"), (2, "ADOPTION")])

    def _next(self, table_no: int, first_version: int) -> tuple[int, str]:
        head = self._lake.heads.get(table_no, {"version": first_version - 1})["version"]
        if self._maybe(0.05):
            head += self._chance.choice([-1, 1])
        if head < first_version:
            return head + 1, self._chance.choice(["HISTORY", "BASELINE", "BASELINE"])
        return max(0, head + 1), self._chance.choice(["COMMIT", "COMMIT", "ADOPTION"])

    def _chunks(self, kind: str, version: int) -> list[list[Body]]:
        bodies: list[Body] = [info(isBlindAppend=True)]
        if version == 0 or kind == "BASELINE":
            bodies += [PROTOCOL, metadata()]
        elif self._maybe(0.1):
            bodies.append(metadata(configuration={"k": str(version)}))
        for _ in range(self._chance.randint(0, 4)):
            path = self._chance.choice([*_PATHS, f"n{self._chance.randint(0, 99)}"])
            bodies.append(
                imports.add(path, size=self._chance.randint(0, 99)) if self._maybe(0.6) else imports.remove(path)
            )
        if self._maybe(0.2):
            bodies.append(("txn", {"appId": "p", "version": self._chance.randint(1, 9)}))
        if self._maybe(0.2):
            bodies.append(("domainMetadata", {"domain": "d", "configuration": "", "removed": self._maybe(0.5)}))
        if self._maybe(0.1):
            bodies += [("someday", {}), ("cdc", {"path": "_change_data/c", "size": 1})]
        if self._maybe(0.05):
            bodies.append(("add", "7"))
        cuts = sorted(self._chance.randint(0, len(bodies)) for _ in range(self._chance.choice([0, 0, 1, 2])))
        return [bodies[start:end] for start, end in zip([0, *cuts], [*cuts, len(bodies)], strict=True)]

    def _maybe(self, share: float) -> bool:
        return self._chance.random() < share
