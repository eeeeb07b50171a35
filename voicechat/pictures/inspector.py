"""The parent's side of `voicechat.pictures.child`: one process for each picture."""

import asyncio
from dataclasses import asdict

import orjson

from voicechat.errors import Fault, RemoteProtocolError
from voicechat.pictures.inspection import PictureLimits
from voicechat.pictures.picture import Picture
from voicechat.processes import python
from voicechat.processes.errors import WorkerError
from voicechat.processes.forked import ForkServer, can_fork
from voicechat.processes.frames import FrameKind

AT_ONCE = 2
"""Pictures decoded at once by one process of the server: each may take 400 MB."""
PIECE_BYTES = 512 * 1024
DECODED_MS = 30_000
"""How long a process may take for a picture. It bounds its own CPU time to 4 s; this
is for machines whose cores are busy.
"""


class PictureInspector:
    """Inspects the pictures of all clients. Between the first use and ``aclose`` a fork
    server runs.
    """

    def __init__(self) -> None:
        self._server = ForkServer(python.command("voicechat.pictures.child"), answer_ms=DECODED_MS)
        self._places = asyncio.Semaphore(AT_ONCE)

    async def inspect(
        self, content: bytes, path: str, limits: PictureLimits | None = None
    ) -> Picture:
        """Check a picture and return it written anew; see ``inspect_picture``.

        Raises ``RemoteProtocolError`` whose message begins with ``path``; besides those
        of ``inspect_picture`` ``UNSUPPORTED_FORMAT`` when its decoder exceeded its
        limits, and ``AT_CAPACITY`` when none could be started. Cancelling ends the
        process.
        """
        if not can_fork():
            raise RemoteProtocolError(
                Fault.UNSUPPORTED_FORMAT, f"{path}: this system cannot decode pictures safely"
            )
        async with self._places:
            try:
                return await self._inspect(content, limits or PictureLimits())
            except RemoteProtocolError as error:
                raise RemoteProtocolError(error.status, f"{path}: {error.message}") from None

    async def aclose(self) -> None:
        """Stop the fork server. Idempotent."""
        await self._server.aclose()

    async def _inspect(self, content: bytes, limits: PictureLimits) -> Picture:
        try:
            stream = await self._server.fork(orjson.dumps(asdict(limits)))
        except WorkerError as error:
            raise RemoteProtocolError(
                Fault.AT_CAPACITY, "pictures cannot be decoded now; try again"
            ) from error
        answers: list[bytes] = []
        try:
            for begin in range(0, len(content), PIECE_BYTES):
                stream.send(content[begin : begin + PIECE_BYTES])
                await stream.receive_frame()
            stream.finish_input()
            while (frame := await stream.receive_frame()).kind is not FrameKind.ENDED:
                if frame.kind is FrameKind.FAILED:
                    raise _refusal(frame.payload)
                answers.append(bytes(frame.payload))
        except WorkerError:
            raise RemoteProtocolError(
                Fault.UNSUPPORTED_FORMAT, "the picture takes too much time or memory to decode"
            ) from None
        finally:
            stream.close()
        content = await asyncio.to_thread(b"".join, answers[1:])
        return Picture(content=content, **orjson.loads(answers[0]))


def _refusal(payload: bytes) -> RemoteProtocolError:
    fault, _, message = payload.decode().partition(" ")
    if not fault:
        return RemoteProtocolError(Fault.UNSUPPORTED_FORMAT, "the picture's decoder failed")
    return RemoteProtocolError(Fault[fault], message)
