"""Ends the open sessions of keys that are revoked, expired, or out of audio quota."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from voicechat.errors import Fault
from voicechat.runtime.tasks import SessionTasks
from voicechat.server.admission import Admission
from voicechat.server.auth import Authoriser
from voicechat.session.events import AccessEnded

WATCH_S = 1.0
"""An open session outlives its key by at most 1 s. New requests are checked on
arrival.
"""
_CLOSE_S = 1.0

_log = logging.getLogger(__name__)


@asynccontextmanager
async def watching_keys(authorise: Authoriser, admission: Admission) -> AsyncIterator[None]:
    """Check the keys in use, once a second, while the context lasts."""
    tasks = SessionTasks(
        on_fault=lambda: _log.error("open sessions now outlive their keys: restart the server")
    )
    _ = tasks.spawn(_watch(authorise, admission), "key-watch")
    try:
        yield
    finally:
        await tasks.close(_CLOSE_S)


async def _watch(authorise: Authoriser, admission: Admission) -> None:
    """Check the keys in use at every interval.

    A failed check ends no session; it is logged once, and the next check runs as usual.
    """
    failed = False
    while True:
        await asyncio.sleep(WATCH_S)
        try:
            await _look(authorise, admission)
        except Exception as error:  # noqa: BLE001 - whatever it is, the watch must go on
            if not failed:
                _log.error("keys in use cannot be checked now: %s: %s", type(error).__name__, error)
            failed = True
        else:
            failed = False


async def _look(authorise: Authoriser, admission: Admission) -> None:
    in_use = admission.keys_in_use()
    if not in_use:
        return
    invalid = await authorise.invalid_of(in_use)
    if invalid:
        _log.info("ending the sessions of %d keys that are no longer valid", len(invalid))
    admission.end_sessions_of(
        invalid, AccessEnded(Fault.NOT_AUTHORISED, "token: the key is no longer valid")
    )
    used_up = authorise.accounts.used_up() - invalid
    admission.end_sessions_of(
        used_up, AccessEnded(Fault.QUOTA, "the key's audio of this day is used up")
    )
