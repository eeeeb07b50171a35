"""A client that goes away ends its request: nobody would read the answer, and a model
costs money by the token.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

from voicechat.errors import VoiceChatError

POLL_S = 0.05
"""How often the connection is looked at. aiohttp tells of its loss only by cancelling
all handlers or none of an application, and the sockets here end in their own way.
"""


class ClientGoneError(VoiceChatError):
    """The client closed the connection before it had its answer."""


@contextmanager
def cancelling_on_disconnect(request: web.Request) -> Iterator[None]:
    """Cancel the body of the context once the client has gone; it then ends with
    ``ClientGoneError``.

    Works as ``asyncio.timeout`` does, and as there a cancellation from elsewhere is
    left as it is.
    """
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None, "handlers run in tasks"
    timer: asyncio.TimerHandle
    gone = False

    def look() -> None:
        nonlocal timer, gone
        if request.transport is None or request.transport.is_closing():
            gone = True
            task.cancel()
        else:
            timer = loop.call_later(POLL_S, look)

    timer = loop.call_later(POLL_S, look)
    cancelling = task.cancelling()
    try:
        yield
    except asyncio.CancelledError:
        if gone and task.uncancel() <= cancelling:
            raise ClientGoneError from None
        raise
    finally:
        timer.cancel()
