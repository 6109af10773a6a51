"""Actions as users give them: values of `deltalakedb.actions`, or dicts as in Delta's log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from .actions import Action, OtherAction, from_json
from .errors import TxnLogValidationError

_FILES = ("add", "remove", "cdc")


def actions_of(given: Iterable[Any]) -> list[Action]:
    """The actions in `given`. Raises `TxnLogValidationError` for what is none."""
    if isinstance(given, (str, bytes, Mapping)):
        raise TxnLogValidationError("actions= is a list of actions")
    return [action if isinstance(action, Action) else _action(action) for action in given]


def _action(given: Any) -> Action:
    if not isinstance(given, Mapping) or len(given) != 1:
        raise TxnLogValidationError(
            "an action is an AddFile, RemoveFile, CdcFile or OtherAction, or a dict with one key as in Delta's log "
            f'({{"add": {{"path": ..., "size": ...}}}}), not {_brief(given)}'
        )
    ((kind, body),) = given.items()
    if not isinstance(kind, str) or not isinstance(body, Mapping):
        raise TxnLogValidationError(f'an action as a dict is like {{"add": {{...}}}}, not {_brief(given)}')
    if kind == "commitInfo":
        raise TxnLogValidationError("commitInfo is written by the committer; give user_metadata= to begin() instead")
    try:
        text = msgspec.json.encode(body)
        if kind not in _FILES:
            return OtherAction(kind=kind, json=text.decode())
        action: Action = from_json(kind, text)
    except (ValueError, TypeError) as error:
        raise TxnLogValidationError(f"this is no {kind} action: {error}") from error
    return action


def _brief(given: Any) -> str:
    text = repr(given)
    return text if len(text) <= 80 else f"{text[:80]}..."
