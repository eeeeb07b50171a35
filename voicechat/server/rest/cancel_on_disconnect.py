"""Cancels a request when its client disconnects, because the response would not be
read, and a model costs money per token.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

from voicechat.errors import VoiceChatError

POLL_S = 0.05
"""How often the connection is polled. aiohttp can cancel the handlers of all routes of
an application or of none, and sockets must end in their own way.
"""


class ClientGoneError(VoiceChatError):
    """The client closed the connection before it had its response."""


@contextmanager
def cancelling_on_disconnect(request: web.Request) -> Iterator[None]:
    """Cancel the body of the context when the client disconnects; raises
    ``ClientGoneError``.

    Like ``asyncio.timeout``, it does not touch a cancellation from elsewhere.
    """
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None, "handlers run in tasks"
    timer: asyncio.TimerHandle
    gone = False

    def poll() -> None:
        nonlocal timer, gone
        if request.transport is None or request.transport.is_closing():
            gone = True
            task.cancel()
        else:
            timer = loop.call_later(POLL_S, poll)

    timer = loop.call_later(POLL_S, poll)
    cancelling = task.cancelling()
    try:
        yield
    except asyncio.CancelledError:
        if gone and task.uncancel() <= cancelling:
            raise ClientGoneError from None
        raise
    finally:
        timer.cancel()
