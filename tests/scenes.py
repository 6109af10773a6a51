"""What a history rarely brings by itself, each as a scene of a log: on tables of its own, so that it comes off at any time."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import msgspec

from deltalakedb.actions import AddFile, RemoveFile
from deltalakedb.codec import encode_chunk, transaction_headers
from deltalakedb.eventlog import Message
from deltalakedb.events import (
    AddColumn,
    AppTransaction,
    Cancel,
    Completion,
    Content,
    Control,
    Intent,
    LakeAction,
    Literal,
    Predicate,
    ReadSet,
    RenameColumn,
    SetProperties,
    SetRules,
    StagedTransaction,
    TableWork,
    Term,
    Tick,
    WrittenAgainst,
)
from tests import imports
from tests.chronicle import BIG, WINDOWS, Chronicle, Chronicler, Deadly, Happening, message_of
from tests.model_lake import LAKE_ID, chunked, txn
from tests.works import ID, add, append, create, field, other, relaxed, remove, schema

HOUR_MS = 3_600_000
MANY = 256
"""Incomplete transactions that a client may have under the first rule sets."""
_DELETES = {"delta.enableDeletionVectors": "true"}


class Scenes:
    """Makes the scenes of one log, from its `chance`."""

    def __init__(self, log: Chronicler, chance: random.Random) -> None:
        self._log = log
        self._chance = chance

    # Tables come and go, and are written in every way.

    def folds(self) -> list[Happening]:
        """Appends under windows that come and go, some with time between, one of them the death of committers."""
        name, first = self._table()
        scene: list[Happening] = [first]
        for _ in range(4):
            scene.append(self._rules(self._chance.choice(WINDOWS)))
            for _ in range(self._chance.randint(2, 6)):
                scene += [self._append(name), self._chance.choice([0, 0, 0, 4, 30, 90])]
        deadly = Deadly(self._append(name), rejected=self._chance.random() < 0.5)
        scene += [self._append(name), deadly, self._append(name), self._append(name)]
        return [*scene, self._control(Tick())] if self._chance.random() < 0.5 else scene

    def big(self) -> list[Happening]:
        """Transactions whose files are rows, among appends of others, and completed too early, wrongly and again."""
        scene: list[Happening] = []
        name, first = self._table(properties=self._chance.choice([{}, {}, {"delta.enableRowTracking": "true"}]))
        paths = self._paths(30)
        chunks = self._dealt(name, [add(path, stats=self._log._stats(path)) for path in paths])
        scene += [first, *self._among(name, chunks)]
        scene += [self._completion(chunks, **{txn(3): 1}), self._completion(chunks), self._completion(chunks)]
        gone = [RemoveFile(path=path) for path in self._chance.sample(paths, 8)]
        chunks = self._dealt(name, [*gone, *map(add, self._paths(9))])
        return [*scene, *self._among(name, chunks[:-1]), self._completion(chunks), chunks[-1], self._completion(chunks)]

    def big_refused(self) -> list[Happening]:
        """For what one of its files is; and unseen, because it was the death of committers."""
        name, first = self._table()
        wrong = self._dealt(name, [*map(add, self._paths(12)), RemoveFile(path="never")])
        deadly = self._dealt(name, list(map(add, self._paths(12))))
        waiting = self._dealt(name, list(map(add, self._paths(12))))
        scene = [first, *self._among(name, wrong), self._completion(wrong), *deadly]
        return [*scene, Deadly(self._completion(deadly), rejected=True), self._completion(deadly), *waiting]

    def undo(self) -> list[Happening]:
        """The inverse of a transaction, which is published twice."""
        name, first = self._table()
        old, new = self._paths(2), self._paths(2)
        swap = TableWork(name=name, read_version=1, adds=tuple(map(add, new)), removes=tuple(map(_gone, old)))
        back = TableWork(
            name=name,
            read_version=2,
            written_against=WrittenAgainst(0, 0),
            operation="UNDO",
            operation_parameters={"txnId": txn(1), "version": "2"},
            adds=tuple(map(add, old)),
            removes=tuple(map(_gone, new)),
        )
        undone = self._one(back)
        return [first, self._one(append(*old, name=name)), self._one(swap), undone, self._one(back), undone]

    # What is no transaction, or not a whole one.

    def junk(self) -> list[Happening]:
        """Bytes that are no event, with and without headers that say whose; and headers that are another chunk's."""
        first, second = self._chunks([Content(tables=()), Content(tables=(append("x"),))])
        whole = message_of(self._append("nowhere"))
        lies = Message(encode_chunk(first.envelope, first.content_bytes), transaction_headers(second.envelope))
        return [
            Message(self._chance.randbytes(30)),
            Message(b"", transaction_headers(second.envelope)),
            Message(whole.value[:-1], whole.headers),
            lies,
            Deadly(self._append("nowhere"), rejected=True),
            first,
        ]

    def quota(self) -> list[Happening]:
        """One client has too much staged, makes room again and again by ending some, and is left alone until all expires."""
        opened = [self._chunks([Content(tables=()), Content(tables=())], client_id="hog") for _ in range(MANY + 14)]
        scene: list[Happening] = [
            self._rules(self._chance.choice(WINDOWS)),
            *[first for first, _ in opened[: MANY + 2]],
        ]
        # A batch ends there, whoever decides: who takes the next one knows that there is no room yet.
        scene.append(self._rules(self._chance.choice(WINDOWS)))
        for n, (first, _) in enumerate(opened[MANY + 2 :]):
            (begun, last) = opened[n]
            ending: list[Happening] = [
                last,
                self._control(Cancel(txn_id=begun.envelope.txn_id)),
                Message(b"", transaction_headers(last.envelope)),
            ]
            scene += [ending[n % 3], first]
        scene += [opened[MANY][1], opened[20][0], opened[1][1]]
        return [*scene, HOUR_MS, opened[21][1], HOUR_MS, self._control(Tick()), opened[22][1], opened[23][0]]

    def expiry(self) -> list[Happening]:
        """Chunks that stop coming, of a big one too; one more comes in time, and one too late."""
        name, first = self._table()
        one, another = [self._chunks([_appended(name, path) for path in self._paths(3)]) for _ in range(2)]
        big = self._dealt(name, list(map(add, self._paths(12))))
        scene: list[Happening] = [first, one[0], another[0], *big[: self._chance.randint(1, BIG - 1)], HOUR_MS // 2]
        return [
            *scene,
            one[2],
            HOUR_MS // 2 + 20,
            self._control(Tick()),
            one[1],
            another[1],
            big[-1],
            self._append(name),
        ]

    def again(self) -> list[Happening]:
        """The same ids with the same content and with another, in one piece and in several."""
        name, first = self._table()
        appended = self._append(name)
        chunks = self._chunks([_appended(name, path) for path in self._paths(3)])
        id_of, id_of_chunks = appended.envelope.txn_id, chunks[0].envelope.txn_id
        changed = chunked([_appended(name, path) for path in self._paths(3)], txn_id=id_of_chunks)
        (instead,) = chunked([_appended(name, *self._paths(1))], txn_id=id_of)
        scene: list[Happening] = [first, appended, appended, instead, *chunks, chunks[1], *changed]
        mixed = self._chunks([_appended(name, path) for path in self._paths(2)])
        wrong = chunked([_appended(name, path) for path in self._paths(2)], txn_id=mixed[0].envelope.txn_id)
        return [*scene, mixed[0], wrong[1], mixed[1]]

    def cancels(self) -> list[Happening]:
        """Before anything came, between two chunks, and too late; and of what is no id."""
        name, first = self._table()
        unborn, decided = self._append(name), self._append(name)
        chunks = self._chunks([_appended(name, path) for path in self._paths(2)])
        ids = [event.envelope.txn_id for event in (unborn, chunks[0], decided)]
        before, between, late = [self._control(Cancel(txn_id=one)) for one in ids]
        nobody = self._control(Cancel(txn_id="nobody"))
        return [first, before, unborn, chunks[0], between, chunks[1], decided, late, nobody, late]

    # What is refused.

    def refusals(self) -> list[Happening]:
        """For what they say of a table: each by itself, in any order."""
        name, first = self._table()
        (path,) = self._paths(1)
        works: list[tuple[TableWork, ...]] = [
            (create(name, if_absent=False),),
            (create(name, location="s3://bucket/lake/elsewhere"),),
            (create(self._name(), '{"type":"struct"}'),),
            (create(self._name(), location="s3://bucket/elsewhere"),),
            (append("../x", name=name),),
            (append(add(path, partition_values={"day": "2024-01-01"}), name=name),),
            (self._wish(name, RenameColumn(column=("id",), new_name="x")),),
            (append(path, name=name, read_version=99),),
            (append(path, name="nowhere"),),
            (remove("never", name=name),),
            (append(path, path, name=name),),
            tuple(relaxed(self._name()) for _ in range(101)),
        ]
        scene: list[Happening] = [self._one(*some) for some in works]
        scene += [self._one(append(path, name=name), lake_id=txn(2)), self._one(append(path, name=name), root="s3://x")]
        scene += [
            self._control(LakeAction(action="paint", table=name)),
            self._control(SetRules(rule_set=1, parameters={"a": "b"})),
        ]
        scene += self._chunks([Content(tables=())], chunk_count=5_000)
        self._chance.shuffle(scene)
        closed = self._one(self._wish(name, SetProperties(set={"delta.appendOnly": "true"})))
        file = self._one(append(path, name=name))
        return [first, *scene, file, closed, self._one(remove(path, name=name))]

    def released(self) -> list[Happening]:
        """A table that others write from here on, one that is dropped, and one that takes its place."""
        name, first = self._table()
        release, drop = [self._control(LakeAction(action=action, table=name)) for action in ("release", "drop")]
        again = self._one(relaxed(name, ID, *map(add, self._paths(2))))
        return [first, self._append(name), release, self._append(name), drop, drop, self._append(name), again, again]

    def races(self) -> list[Happening]:
        """What was read is changed by who comes first, in every way that Delta knows."""
        name, first = self._table(
            serializable=True, properties={"delta.feature.domainMetadata": "supported", **_DELETES}
        )
        a, b, c, d = self._paths(4)
        day = Predicate((Term("=", ("day",), (Literal("date", "2024-01-01"),)),))
        scene: list[Happening] = [first, self._one(append(a, b, c, d, name=name))]
        claims = other("domainMetadata", {"domain": "X", "configuration": "{}", "removed": False})
        # What comes first, and then what read the version before it.
        races: list[tuple[dict[str, Any], dict[str, Any]]] = [
            ({"removes": (_gone(a),)}, {"removes": (_gone(a),)}),
            ({"removes": (_gone(b),)}, {"read_set": ReadSet(files=(b,)), "adds": (add("n1"),)}),
            ({"adds": (add("n2"),)}, {"read_set": ReadSet(whole_table=True), "adds": (add("n3"),)}),
            ({"adds": (add("n4"),)}, {"read_set": ReadSet(predicates=(day,)), "adds": (add("n5"),)}),
            (
                {"intents": (SetProperties(set={"k": "v"}),)},
                {"read_set": ReadSet(whole_table=True), "adds": (add("n6"),)},
            ),
            (
                {"intents": (SetProperties(set={"delta.feature.vacuumProtocolCheck": "supported"}),)},
                {"others": (other("protocol", {"minReaderVersion": 1, "minWriterVersion": 7, "writerFeatures": []}),)},
            ),
            ({"others": (claims,)}, {"others": (claims,)}),
            (
                {"others": (other("txn", {"appId": "P", "version": 1}),)},
                {"read_set": ReadSet(app_ids=("P",)), "adds": (add("n8"),)},
            ),
            (
                {"intents": (AddColumn(field=json.dumps(field("new", "string"))),)},
                {"adds": (add("n9"),), "read_version": None, "written_against": None},
            ),
        ]
        for version, (winner, loser) in enumerate(races, 1):
            for fields in (winner, loser):
                read = {"read_version": version, "written_against": WrittenAgainst(0, 0), **fields}
                scene.append(self._one(TableWork(name=name, **read)))
        return scene

    def apps(self) -> list[Happening]:
        """Versions of applications that were committed before, in part and as a whole, under new ids."""
        name, first = self._table()
        sent = [
            (("P", 1),),
            (("P", 1),),
            (("q", 4), ("Ä", 1)),
            (("q", 3), ("z", 1)),
            (("z", 9), ("p", 2)),
            (("q", 4), ("Ä", 1)),
        ]
        return [first, *[self._append(name, apps=tuple(AppTransaction(*one) for one in apps)) for apps in sent]]

    # What comes from elsewhere.

    def imported(self) -> list[Happening]:
        """A table that is taken over while others claim its name, lose versions or come from the future."""
        name, import_id = self._name(), self._id()
        place = f"file:///elsewhere/{name}"

        def version(number: int, *bodies: imports.Body, **more: Any) -> Happening:
            fields: dict[str, Any] = {"table_name": name, "import_id": import_id, "location": place, **more}
            return imports.one(number, *bodies, **fields)

        begun = imports.first(imports.add("b"), table_name=name, import_id=import_id, location=place)
        adopted = version(2, imports.add("c"), kind="ADOPTION")
        read = TableWork(name=name, read_version=1, read_set=ReadSet(whole_table=True), adds=(add("n"),))
        drop = self._control(LakeAction(action="drop", table=name))
        return [
            begun,
            self._append(name),
            version(7),
            version(1, location="file:///elsewhere/another"),
            imports.first(table_name=name, import_id=self._id(), location=f"{place}-2"),
            version(1, time_ms=2**45, attempt=1),
            version(1, imports.add("B"), imports.remove("b"), attempt=2),
            adopted,
            adopted,
            version(3),
            self._one(read),
            self._append(name),
            drop,
            version(4),
        ]

    def targets(self) -> list[Happening]:
        """Where logs are mirrored to: one that comes, rests and goes, and what is none."""
        name = f"t{self._log._new_number()}"
        parameters = {"kind": "replica", "root": f"s3://mirror/{name}"}
        actions = [
            LakeAction(action="target-add", target=name, parameters=parameters),
            LakeAction(action="target-pause", target=name),
            LakeAction(action="target-add", target=name, parameters={**parameters, "root": "s3://mirror"}),
            LakeAction(action="target-resume", target="nobody"),
            LakeAction(action="target-remove", target=name),
        ]
        return [self._control(action) for action in actions]

    # In few words.

    def _id(self) -> str:
        return txn(self._log._new_number())

    def _name(self) -> str:
        return self._chance.choice("sSz") + str(self._log._new_number())

    def _paths(self, count: int) -> list[str]:
        return [self._log._path(self._log._new_number()) for _ in range(count)]

    def _table(self, *, serializable: bool = False, properties: dict[str, str] | None = None) -> tuple[str, Happening]:
        """A new table, and what makes it."""
        name, make = self._name(), create if serializable else relaxed
        return name, self._one(make(name, schema(*self._log.columns), properties=properties or {}))

    def _wish(self, name: str, *intents: Intent) -> TableWork:
        return TableWork(name=name, intents=intents, read_version=0, written_against=WrittenAgainst(0, 0))

    def _append(self, name: str, **content: Any) -> StagedTransaction:
        adds = [add(path, stats=self._log._stats(path)) for path in self._paths(self._chance.randint(1, 2))]
        return self._one(append(*adds, name=name), **content)

    def _one(self, *works: TableWork, apps: tuple[AppTransaction, ...] = (), **envelope: Any) -> StagedTransaction:
        (event,) = self._chunks([Content(tables=works, apps=apps)], **envelope)
        return event

    def _chunks(self, contents: list[Content], **envelope: Any) -> list[StagedTransaction]:
        who = {"client_id": self._chance.choice(["client", "Öther"]), "outcome_partition": self._chance.randint(0, 9)}
        return chunked(contents, txn_id=self._id(), **{**who, **envelope})

    def _control(self, command: Cancel | Tick | SetRules | LakeAction) -> Control:
        return Control(
            control_id=self._id(), lake_id=LAKE_ID, client_id="operator", outcome_partition=1, command=command
        )

    def _rules(self, number: int) -> Control:
        return self._control(SetRules(rule_set=number))

    def _completion(self, chunks: list[StagedTransaction], **heads: int) -> Completion:
        return Completion(lake_id=LAKE_ID, client_id="committer", txn_id=chunks[0].envelope.txn_id, heads=heads)

    def _dealt(self, name: str, files: list[AddFile | RemoveFile]) -> list[StagedTransaction]:
        """A big transaction of these files, in any order; some of it comes twice."""
        hands: list[list[AddFile | RemoveFile]] = [[] for _ in range(BIG)]
        for file in files:
            self._chance.choice(hands).append(file)
        whole = TableWork(name=name, read_version=None, written_against=WrittenAgainst(0, 0), operation="MERGE")
        contents = [
            Content(
                tables=(
                    msgspec.structs.replace(
                        whole if n == 0 else TableWork(name=name),
                        adds=tuple(file for file in hand if isinstance(file, AddFile)),
                        removes=tuple(file for file in hand if isinstance(file, RemoveFile)),
                    ),
                )
            )
            for n, hand in enumerate(hands)
        ]
        chunks = self._chunks(contents)
        if self._chance.random() < 0.5:
            chunks[1:] = self._chance.sample(chunks[1:], BIG - 1)
        return chunks

    def _among(self, name: str, chunks: list[StagedTransaction]) -> list[Happening]:
        """Chunks with what others do at the same time, and one of them again."""
        scene: list[Happening] = []
        for chunk in chunks:
            scene += [chunk, self._append(name)] if self._chance.random() < 0.2 else [chunk]
        return [*scene, self._chance.choice(chunks)]


def _gone(path: str) -> RemoveFile:
    return RemoveFile(path=path)


def _appended(name: str, path: str) -> Content:
    return Content(tables=(append(path, name=name),))


SCENES: dict[str, Callable[[Scenes], list[Happening]]] = {
    name: scene for name, scene in vars(Scenes).items() if not name.startswith("_")
}


def chronicle(seed: int, *, events: int = 4) -> Chronicle:
    """The log of that number: every scene once, in any order, with about so many steps of a history before each. The longest
    scene is in every fourth."""
    chance = random.Random(seed)
    log = Chronicler(chance)
    scenes = Scenes(log, chance)
    log.happens("rules", [scenes._rules(chance.choice(WINDOWS))])
    names = sorted(SCENES.keys() - ({"quota"} if seed % 4 else set()))
    for name in chance.sample(names, len(names)):
        for _ in range(chance.randint(0, 2 * events)):
            log.some()
        log.happens(name, SCENES[name](scenes))
    return log.ends()
