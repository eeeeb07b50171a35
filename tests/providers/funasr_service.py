"""A scripted FunASR runtime that does what the real servers' code does, with a hearing
that is easy to foretell.

`PythonServer` follows ``runtime/python/websocket/funasr_wss_server.py`` (its handling
of messages, frames and chunks), `CppServer`
``runtime/websocket/bin/websocket-server-2pass.cpp``, of github.com/modelscope/FunASR.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from tests.providers.loopback import websocket_service

BYTES_PER_MS = 32
CHARACTER_MS = 200
VAD_END_MS = 800
"""Of zeros; what FSMN-VAD waits for."""
CHARACTERS = "天地玄黄宇宙洪荒日月盈昃辰宿列张"
Disturbance = Callable[[ServerConnection], Awaitable[None]]


@dataclass
class Hearing:
    """Hears a character in each 200 ms that are not all zeros, and where speech begins
    and ends.
    """

    _audio: bytes = b""
    _count: int = 0
    now_ms: int = 0
    quiet_ms: int = 0
    spoken: list[tuple[str, int, int]] = field(default_factory=list)

    def push(self, pcm: bytes) -> bool:
        """Listen; True when an utterance has ended."""
        self._audio += pcm
        ended = False
        step = CHARACTER_MS * BYTES_PER_MS
        while len(self._audio) >= step:
            piece, self._audio = self._audio[:step], self._audio[step:]
            if any(piece):
                self.quiet_ms = 0
                character = CHARACTERS[self._count % len(CHARACTERS)]
                self.spoken.append((character, self.now_ms, self.now_ms + CHARACTER_MS))
                self._count += 1
            else:
                self.quiet_ms += CHARACTER_MS
            self.now_ms += CHARACTER_MS
            ended |= bool(self.spoken) and self.quiet_ms >= VAD_END_MS
        return ended


class FunASR:
    """What both servers have in common. ``disturb`` replaces what they do at a point:
    begin, audio, end.
    """

    def __init__(self) -> None:
        self.url = ""
        self.begun: list[dict[str, object]] = []
        self.frames: list[int] = []
        self.disturb: dict[str, Disturbance] = {}
        self.gone = asyncio.Event()

    async def handle(self, socket: ServerConnection) -> None:
        try:
            await self.serve(socket)
        except ConnectionClosed:
            pass
        finally:
            self.gone.set()

    async def serve(self, socket: ServerConnection) -> None:
        raise NotImplementedError

    async def disturbed(self, socket: ServerConnection, point: str) -> bool:
        if point in self.disturb:
            await self.disturb[point](socket)
            return True
        return False


class PythonServer(FunASR):
    """``old``: as before July 2026: no answer to ``is_end``, ``is_final`` the wrong way
    round.
    """

    def __init__(self, *, old: bool = False, stamps: bool = True) -> None:
        super().__init__()
        self.old = old
        self.stamps = stamps

    async def serve(self, socket: ServerConnection) -> None:
        hearing, chunk_frames, told, speaking = Hearing(), 0, 0, True
        config: dict[str, object] = {}
        async for message in socket:
            if isinstance(message, str):
                given = json.loads(message)
                speaking = bool(given.get("is_speaking", speaking))
                if speaking:
                    config = given
                    self.begun.append(given)
                    if await self.disturbed(socket, "begin"):
                        return
                    continue
                if await self.disturbed(socket, "end"):
                    return
                await self._second_pass(socket, hearing, speaking)
                if given.get("is_end") and not self.old:
                    await send(
                        socket,
                        mode="2pass",
                        wav_name=config["wav_name"],
                        is_final=True,
                        is_end=True,
                    )
                continue
            assert "chunk_size" in config, "audio before the configuration"
            self.frames.append(len(message))
            if await self.disturbed(socket, "audio"):
                return
            chunk_frames += 1
            ended = hearing.push(message)
            if chunk_frames % int(str(config["chunk_interval"])) == 0:
                new = "".join(character for character, _, _ in hearing.spoken[told:])
                told = len(hearing.spoken)
                if new:
                    is_final = speaking if self.old else False
                    await send(
                        socket,
                        mode="2pass-online",
                        text=new,
                        wav_name="voicechat",
                        is_final=is_final,
                    )
            if ended:
                await self._second_pass(socket, hearing, speaking)
                told = 0

    async def _second_pass(
        self, socket: ServerConnection, hearing: Hearing, speaking: bool
    ) -> None:
        spoken, hearing.spoken = hearing.spoken, []
        text = "".join(character for character, _, _ in spoken) + ("。" if spoken else "")
        if not spoken and not self.old:
            return
        extra: dict[str, object] = {} if self.old else {"spk_name": "unknown", "spk_score": 0.0}
        if spoken and self.stamps and not self.old:
            zero = spoken[0][1]
            extra["timestamp"] = [[begin - zero, end - zero] for _, begin, end in spoken]
        is_final = speaking if self.old else True
        await send(
            socket,
            mode="2pass-offline",
            text=text,
            wav_name="voicechat",
            is_final=is_final,
            **extra,
        )


class CppServer(FunASR):
    async def serve(self, socket: ServerConnection) -> None:
        hearing, told, buffered = Hearing(), 0, b""
        async for message in socket:
            if isinstance(message, str):
                given = json.loads(message)
                if given["is_speaking"]:
                    self.begun.append(given)
                    if await self.disturbed(socket, "begin"):
                        return
                    continue
                if await self.disturbed(socket, "end"):
                    return
                hearing.push(buffered)
                await send(socket, **self._result(hearing), wav_name="voicechat", is_final=True)
                continue
            self.frames.append(len(message))
            if await self.disturbed(socket, "audio"):
                return
            buffered += message
            while len(buffered) >= 1600:  # 50 ms
                piece, buffered = buffered[:1600], buffered[1600:]
                if hearing.push(piece):
                    await send(
                        socket, **self._result(hearing), wav_name="voicechat", is_final=False
                    )
                    told = 0
                elif hearing.now_ms % 600 == 0 and len(hearing.spoken) > told:
                    new = "".join(character for character, _, _ in hearing.spoken[told:])
                    told = len(hearing.spoken)
                    await send(
                        socket,
                        mode="2pass-online",
                        text=new,
                        timestamp=1792000000000,
                        wav_name="v",
                        is_final=False,
                    )

    @staticmethod
    def _result(hearing: Hearing) -> dict[str, object]:
        spoken, hearing.spoken = hearing.spoken, []
        if not spoken:
            return {"text": "", "timestamp": 1792000000000}
        stamps = [[begin, end] for _, begin, end in spoken]
        clause = {"text_seg": " ".join(character for character, _, _ in spoken), "punc": "。"}
        clause_times = {"start": stamps[0][0], "end": stamps[-1][1], "ts_list": stamps}
        return {
            "mode": "2pass-offline",
            "text": "".join(character for character, _, _ in spoken) + "。",
            "timestamp": json.dumps(stamps, separators=(",", ":")),
            "stamp_sents": [clause | clause_times],
        }


async def send(socket: ServerConnection, **message: object) -> None:
    await socket.send(json.dumps(message, ensure_ascii=False))


@asynccontextmanager
async def funasr(server: FunASR) -> AsyncIterator[FunASR]:
    async with websocket_service(server.handle, subprotocols=("binary",)) as server.url:
        yield server
