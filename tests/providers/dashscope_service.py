"""A scripted DashScope, written from the public Python SDK: what that expects of the
service, this one does.

``tests/providers/test_dashscope_sdk.py`` lets the SDK itself judge it.
"""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from tests.providers.loopback import websocket_service

WORD_MS = 100
PAUSE_MS = 300
"""Of zeros: ends a sentence."""
Disturbance = Callable[[ServerConnection, str], Awaitable[None]]


@dataclass
class Asked:
    """What one task was asked."""

    connection: int
    task_id: str
    payload: dict[str, object]
    audio: bytes = b""
    texts: list[str] = field(default_factory=list)
    finished: bool = False


class Dictation:
    """Hears a word in each 100 ms that are not all zeros: enough to check times and
    order by.
    """

    def __init__(self) -> None:
        self._audio = b""
        self._now_ms = 0
        self._quiet_ms = 0
        self._words: list[dict[str, object]] = []

    def push(self, pcm: bytes) -> list[dict[str, object]]:
        self._audio += pcm
        sentences = []
        while len(self._audio) >= WORD_MS * 32:
            piece, self._audio = self._audio[: WORD_MS * 32], self._audio[WORD_MS * 32 :]
            if any(piece):
                self._quiet_ms = 0
                word = {"text": f"w{len(self._words) + 1}", "punctuation": "", "fixed": False}
                self._words.append(
                    word | {"begin_time": self._now_ms, "end_time": self._now_ms + WORD_MS}
                )
                sentences.append(self._sentence(final=False))
            else:
                self._quiet_ms += WORD_MS
            self._now_ms += WORD_MS
            if self._quiet_ms >= PAUSE_MS:
                sentences += self.finish()
        return sentences

    def finish(self) -> list[dict[str, object]]:
        if not self._words:
            return []
        sentence = self._sentence(final=True)
        self._words = []
        return [sentence]

    def _sentence(self, *, final: bool) -> dict[str, object]:
        words = [dict(word) for word in self._words]
        if final:
            words[-1]["punctuation"] = "."
        return {
            "begin_time": words[0]["begin_time"],
            "end_time": words[-1]["end_time"] if final else None,
            "text": " ".join(str(word["text"]) for word in words) + ("." if final else ""),
            "heartbeat": False,
            "sentence_end": final,
            "words": words,
        }


class DashScope:
    """The service's memory and its script. ``disturb`` replaces what it does at a
    point: run, input, finish.
    """

    def __init__(self) -> None:
        self.url = ""
        self.refusal: int | None = None
        self.authorization: list[str | None] = []
        self.asked: list[Asked] = []
        self.disturb: dict[str, Disturbance] = {}
        self.open = 0
        self.gone = asyncio.Event()
        """A connection has ended."""
        self._connections = itertools.count(1)

    @property
    def connections(self) -> int:
        """How many different connections tasks came over."""
        return len({asked.connection for asked in self.asked})

    def refuse(self, connection: ServerConnection, request: Request) -> Response | None:
        self.authorization.append(request.headers.get("Authorization"))
        if not self.refusal:
            return None
        response = connection.respond(self.refusal, "{}")
        response.headers["Location"] = self.url
        return response

    async def handle(self, socket: ServerConnection) -> None:
        number = next(self._connections)
        self.open += 1
        try:
            while True:
                if not await self._task(socket, number):
                    return
        except ConnectionClosed:
            pass
        finally:
            self.open -= 1
            self.gone.set()

    async def _task(self, socket: ServerConnection, number: int) -> bool:
        """Serve one task; False when it failed, which ends the connection, too."""
        command = json.loads(await socket.recv())
        header, payload = command["header"], command["payload"]
        assert header["action"] == "run-task"
        assert header["streaming"] == "duplex"
        asked = Asked(number, header["task_id"], payload)
        self.asked.append(asked)
        if "run" in self.disturb:
            await self.disturb["run"](socket, asked.task_id)
            return False
        await send_event(socket, "task-started", asked.task_id)
        serve = self._recognise if payload["task"] == "asr" else self._speak
        return await serve(socket, asked)

    async def _recognise(self, socket: ServerConnection, asked: Asked) -> bool:
        assert asked.payload["function"] == "recognition"
        dictation = Dictation()
        while True:
            message = await socket.recv()
            if isinstance(message, bytes):
                asked.audio += message
                if "input" in self.disturb:
                    await self.disturb["input"](socket, asked.task_id)
                    return False
                for sentence in dictation.push(message):
                    await send_sentence(socket, asked.task_id, sentence)
                continue
            command = json.loads(message)
            assert (command["header"]["action"], command["header"]["task_id"]) == (
                "finish-task",
                asked.task_id,
            )
            if "finish" in self.disturb:
                await self.disturb["finish"](socket, asked.task_id)
                return False
            for sentence in dictation.finish():
                await send_sentence(socket, asked.task_id, sentence)
            return await self._finished(socket, asked)

    async def _speak(self, socket: ServerConnection, asked: Asked) -> bool:
        assert asked.payload["function"] == "SpeechSynthesizer"
        while True:
            command = json.loads(await socket.recv())
            assert command["header"]["task_id"] == asked.task_id
            if command["header"]["action"] == "finish-task":
                break
            asked.texts.append(command["payload"]["input"]["text"])
        if "finish" in self.disturb:
            await self.disturb["finish"](socket, asked.task_id)
            return False
        pcm = audio_of("".join(asked.texts))
        await send_sentence(socket, asked.task_id, {"words": []})
        for start in range(0, len(pcm), 999):  # an odd number: samples are cut in two
            await socket.send(pcm[start : start + 999])
        return await self._finished(socket, asked)

    async def _finished(self, socket: ServerConnection, asked: Asked) -> bool:
        asked.finished = True
        await send_event(
            socket,
            "task-finished",
            asked.task_id,
            {"output": {"sentence": {"words": []}}, "usage": None},
        )
        return True


def audio_of(text: str) -> bytes:
    """What the service makes of a text: 2 ms at 24 kHz for each character."""
    return b"".join((ord(char) % 9000 + 1).to_bytes(2, "little") * 48 for char in text)


async def send_event(
    socket: ServerConnection, event: str, task_id: str, payload: object = None, **header: str
) -> None:
    message = {
        "header": {"task_id": task_id, "event": event, "attributes": {}, **header},
        "payload": payload or {},
    }
    await socket.send(json.dumps(message, ensure_ascii=False))


async def send_sentence(
    socket: ServerConnection, task_id: str, sentence: dict[str, object]
) -> None:
    await send_event(
        socket,
        "result-generated",
        task_id,
        {"output": {"sentence": sentence}, "usage": {"duration": 1}},
    )


async def fail(
    socket: ServerConnection, task_id: str, code: str, message: str = "said by the test"
) -> None:
    await send_event(socket, "task-failed", task_id, error_code=code, error_message=message)


@asynccontextmanager
async def dashscope() -> AsyncIterator[DashScope]:
    service = DashScope()
    async with websocket_service(service.handle, refuse=service.refuse) as service.url:
        yield service
