"""Deciding lake actions: tables are released and dropped, mirror targets come, pause and go. Pure, like every decision."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from deltalakedb.actions import Protocol
from deltalakedb.errors import Reason
from deltalakedb.events import Committed, LakeAction, TableVersion
from deltalakedb.features import FENCE_FEATURE
from deltalakedb.locations import nested, same

from .answers import Asker, accepted, commit
from .decisions import Accepted, Commit, Entry, TableChange
from .facts import SERIALIZABLE
from .refusal import Refused, shown
from .state import State, TableState, Target

_TARGET = re.compile(r"[A-Za-z0-9][A-Za-z0-9_\-]{0,62}")
_STATES = {"target-pause": "PAUSED", "target-resume": "ACTIVE", "target-remove": "REMOVED"}
_KINDS = ("copy", "replica")


def decide_action(state: State, action: LakeAction, asker: Asker) -> Commit | Accepted:
    """What an action does; what is so already changes nothing. Raises `Refused`."""
    match action.action:
        case "release":
            return _release(state, _table(state, action), asker)
        case "drop":
            return _drop(state, _table(state, action), asker)
        case "target-add":
            return _targeted(state, asker, _new_target(state, action))
        case "target-pause" | "target-resume" | "target-remove":
            target = _target(state, action)
            return _targeted(state, asker, target._replace(state=_STATES[action.action]))
        case _:
            raise Refused(
                Reason.NOT_SUPPORTED,
                f"rule set {state.rules.number} knows no lake action {shown(action.action)}",
                table=action.table,
            )


def _release(state: State, table: TableState, asker: Asker) -> Commit | Accepted:
    """A last version whose protocol lets other writers in again; from here on the table is only read here."""
    if table.state == "RELEASED":
        return accepted(asker, _newest(state), None)
    if table.state != "ACTIVE" or table.protocol is None:
        raise Refused(
            Reason.TABLE_READ_ONLY,
            f"the table is {table.state.lower()}: there is nothing to release. An import is given up by dropping the table",
            table=table.name,
        )
    open_to_all = _without_fence(table.protocol)
    version = table.version + 1
    change = TableChange(
        table=table,
        version=version,
        operation="RELEASE TABLE",
        operation_parameters={},
        operation_metrics={},
        read_version=table.version,
        isolation_level=SERIALIZABLE,
        is_blind_append=False,
        protocol=None if open_to_all == table.protocol else open_to_all,
        changes_data=False,
        live_files=table.live_files,
        live_bytes=table.live_bytes,
        widths=table.widths,
    )
    return commit(
        state,
        asker,
        None,
        max(asker.time_ms, state.time_ms, 1 + table.time_ms),
        [TableVersion(name=table.name, table_id=table.table_id, version=version)],
        changes=(change,),
        entries=(msgspec.structs.replace(Entry.of(table), state="RELEASED"),),
    )


def _without_fence(protocol: Protocol) -> Protocol:
    features = tuple([name for name in protocol.writer_features or () if name != FENCE_FEATURE])
    return msgspec.structs.replace(protocol, writer_features=features if protocol.writer_features else None)


def _drop(state: State, table: TableState, asker: Asker) -> Commit | Accepted:
    """The name is free again; earlier snapshots still have the table. Nothing is deleted at its location."""
    entry = msgspec.structs.replace(Entry.of(table), state="DROPPED")
    if table.created_seq is None:
        return accepted(asker, _newest(state), None, entries=(entry,))
    entry = msgspec.structs.replace(entry, dropped_seq=state.commit_seq + 1)
    time_ms = max(asker.time_ms, state.time_ms, 1 + table.time_ms)
    return commit(state, asker, None, time_ms, (), entries=(entry,))


def _targeted(state: State, asker: Asker, target: Target) -> Accepted:
    changed = None if state.targets.get(target.target) == target else target
    return accepted(asker, _newest(state), None, target=changed)


def _new_target(state: State, action: LakeAction) -> Target:
    name, kind = action.target or "", action.parameters.get("kind", "")
    root = action.parameters.get("root", "").rstrip("/")
    _check_parameters(action.parameters, ("kind", "root"))
    if not _TARGET.fullmatch(name):
        raise Refused(
            Reason.INVALID_ACTION, f"{shown(name)} is not the name of a target: letters, digits, _ and -, 63 at most"
        )
    if kind not in _KINDS:
        raise Refused(Reason.INVALID_ACTION, f"a target is of kind {' or '.join(_KINDS)}, not {shown(kind)}")
    if "://" not in root or "\0" in root or len(root.encode()) > state.rules.max_imported_path_bytes:
        raise Refused(Reason.INVALID_PATH, f"the target's root {shown(root)} is not an absolute URI")
    there = state.targets.get(name)
    if there is not None:
        if there.kind != kind or there.root is None or not same(there.root, root):
            raise Refused(
                Reason.TABLE_EXISTS,
                f"target {shown(name)} is of kind {there.kind} at {shown(there.root)}: choose another name",
            )
        if there.state != "REMOVED":
            return there._replace(state="ACTIVE")
    others = [(f"table {table.name}", table.location) for table in state.tables.values() if table.state != "DROPPED"]
    others += [
        (f"target {other.target}", other.root)
        for other in state.targets.values()
        if other.root is not None and other.target != name
    ]
    for what, place in (("the lake", state.lake.root), *others):
        if nested(root, place):
            raise Refused(
                Reason.INVALID_PATH,
                f"{what[:80]} lies at {shown(place)}: a target's root {shown(root)} is apart from it",
            )
    if there is not None:
        return there._replace(state="ACTIVE")
    return Target(target=name, kind=kind, root=root, state="ACTIVE", added_seq=state.commit_seq)


def _target(state: State, action: LakeAction) -> Target:
    _check_parameters(action.parameters, ())
    found = state.targets.get(action.target or "")
    if found is None or (found.state == "REMOVED" and action.action != "target-remove"):
        known = ", ".join(sorted(name for name, target in state.targets.items() if target.state != "REMOVED"))
        raise Refused(Reason.INVALID_ACTION, f"there is no target {shown(action.target)}; there are {known}")
    return found


def _table(state: State, action: LakeAction) -> TableState:
    _check_parameters(action.parameters, ())
    table = state.table(name=action.table)
    if table is None:
        raise Refused(
            Reason.UNKNOWN_TABLE, f"there is no table {shown(action.table)}", table=(action.table or "")[:255]
        )
    return table


def _check_parameters(given: Mapping[str, str], known: tuple[str, ...]) -> None:
    unknown = given.keys() - set(known)
    if unknown:
        raise Refused(Reason.INVALID_ACTION, f"the action has no parameter {shown(min(unknown))}")


def _newest(state: State) -> Committed:
    return Committed(commit_seq=state.commit_seq, time_ms=state.time_ms, tables=())
