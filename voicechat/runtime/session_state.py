"""The snapshot of a session as bytes, for a store."""

from functools import cache

import orjson
from pydantic import TypeAdapter, ValidationError

from voicechat.session.snapshot import VERSION, SessionSnapshot


class UnreadableStateError(ValueError):
    """The state was written by another version, or is damaged."""


@cache
def _adapter() -> TypeAdapter[SessionSnapshot]:
    return TypeAdapter(SessionSnapshot)


def write_snapshot(snapshot: SessionSnapshot) -> bytes:
    """Write a snapshot as JSON."""
    return orjson.dumps(snapshot, default=list, option=orjson.OPT_NON_STR_KEYS)


def read_snapshot(written: bytes) -> SessionSnapshot:
    """Read what ``write_snapshot`` wrote. Raises `UnreadableStateError`."""
    try:
        snapshot = _adapter().validate_json(written)
    except ValidationError as error:
        first = error.errors()[0]["loc"]
        raise UnreadableStateError(f"not a snapshot: {first}") from None
    if snapshot.version != VERSION:
        raise UnreadableStateError(f"version {snapshot.version} is not {VERSION}")
    return snapshot
