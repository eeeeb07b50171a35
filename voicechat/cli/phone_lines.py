"""The far end of a telephone line, for ``voicechat call``: what a provider or Asterisk
does with a call, in real time.
"""

import asyncio
import json
import uuid
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import numpy as np
import pybase64
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI

from voicechat.audio import g711
from voicechat.cli.command import CommandError
from voicechat.dialects.audiosocket.frames import DTMF, HANGUP, ID, NARROW, AudioSocketFraming

RATE_HZ = 8_000
FRAME_MS = 20
FRAME_BYTES = RATE_HZ * FRAME_MS // 1000 * 2
"""Of 16-bit samples."""
CONNECT_S = 10.0
STREAM = "MZ" + 32 * "0"


class PhoneLine(ABC):
    """A line that is connected. ``play`` is called every 20 ms; what comes in between
    is kept until it is played.
    """

    def __init__(self) -> None:
        self.over = False
        """The server has hung up, or is gone."""
        self.clears = 0
        """How often the server has taken back what was not played."""
        self._waiting: deque[bytes | str] = deque()
        """Frames that have not been played, and the names of marks between them."""
        self._rest = b""

    @abstractmethod
    async def receive(self) -> None:
        """Take what the server sends, until it hangs up."""

    @abstractmethod
    async def speak(self, pcm: bytes) -> None:
        """Send one frame of the caller: samples of 20 ms."""

    @abstractmethod
    async def press(self, key: str) -> None:
        """Press a key."""

    @abstractmethod
    async def hang_up(self) -> None:
        """End the call."""

    async def play(self) -> bytes | None:
        """Play the next 20 ms; None: there is nothing to play."""
        while self._waiting and isinstance(self._waiting[0], str):
            await self._return_mark(str(self._waiting.popleft()))
        return bytes(self._waiting.popleft()) if self._waiting else None  # type: ignore[arg-type]

    async def _return_mark(self, name: str) -> None:
        raise NotImplementedError("this line has no marks")

    def _keep(self, pcm: bytes) -> None:
        """Cut audio into frames of 20 ms."""
        self._rest += pcm
        while len(self._rest) >= FRAME_BYTES:
            self._waiting.append(self._rest[:FRAME_BYTES])
            self._rest = self._rest[FRAME_BYTES:]


class TwilioLine(PhoneLine):
    """Twilio's side of a media stream."""

    def __init__(self, socket: ClientConnection) -> None:
        super().__init__()
        self._socket = socket
        self._chunk = 0

    async def start(self, parameters: Mapping[str, str]) -> None:
        """Tell that the stream starts."""
        media = {"encoding": "audio/x-mulaw", "sampleRate": RATE_HZ, "channels": 1}
        start = {
            "streamSid": STREAM,
            "callSid": f"CA{uuid.uuid4().hex}",
            "tracks": ["inbound"],
            "mediaFormat": media,
            "customParameters": dict(parameters),
        }
        await self._socket.send(json.dumps({"event": "connected", "protocol": "Call"}))
        await self._say("start", start=start)

    async def _say(self, event: str, **fields: object) -> None:
        message = {"event": event, "streamSid": STREAM, **fields}
        try:
            await self._socket.send(json.dumps(message))
        except ConnectionClosed:
            self.over = True

    async def receive(self) -> None:
        """See ``PhoneLine``."""
        try:
            async for frame in self._socket:
                await self._take(json.loads(frame))
        except ConnectionClosed:
            pass  # abnormally; the call is over all the same
        self.over = True

    async def _take(self, message: dict[str, dict[str, str]]) -> None:
        match message.get("event"):
            case "media":
                line = np.frombuffer(pybase64.b64decode(message["media"]["payload"]), np.uint8)
                self._keep(g711.MU_LAW[line].astype("<i2").tobytes())
            case "mark":
                self._waiting.append(message["mark"]["name"])
            case "clear":
                self.clears += 1
                marks = [each for each in self._waiting if isinstance(each, str)]
                self._waiting.clear()
                self._rest = b""
                for name in marks:
                    await self._return_mark(name)
            case event:
                raise CommandError(f"the server sent {event!r}, which Twilio does not know")

    async def speak(self, pcm: bytes) -> None:
        """See ``PhoneLine``."""
        self._chunk += 1
        payload = pybase64.b64encode_as_string(g711.encoded(pcm, g711.MU_LAW_CODES))
        media = {
            "track": "inbound",
            "chunk": str(self._chunk),
            "timestamp": str((self._chunk - 1) * FRAME_MS),
            "payload": payload,
        }
        await self._say("media", media=media)

    async def press(self, key: str) -> None:
        """See ``PhoneLine``."""
        await self._say("dtmf", dtmf={"track": "inbound_track", "digit": key})

    async def _return_mark(self, name: str) -> None:
        await self._say("mark", mark={"name": name})

    async def hang_up(self) -> None:
        """See ``PhoneLine``."""
        await self._say("stop", stop={})
        await self._socket.close()


class AudioSocketLine(PhoneLine):
    """Asterisk's side of AudioSocket. It plays what comes, as it comes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__()
        self._reader = reader
        self._writer = writer
        self._framing = AudioSocketFraming()

    async def start(self, call_id: uuid.UUID) -> None:
        """Tell the id of the call."""
        await self._send(ID, call_id.bytes)

    async def _send(self, kind: int, payload: bytes = b"") -> None:
        try:
            self._writer.write(self._framing.write(bytes((kind,)) + payload))
            await self._writer.drain()
        except ConnectionError:
            self.over = True

    async def receive(self) -> None:
        """See ``PhoneLine``."""
        try:
            while not self.over and (data := await self._reader.read(4096)):
                for frame in map(bytes, self._framing.push(data)):  # type: ignore[arg-type]
                    self.over = self.over or frame[0] == HANGUP
                    if frame[0] == NARROW:
                        self._keep(frame[1:])
        except ConnectionError:
            pass  # abnormally; the call is over all the same
        self.over = True

    async def speak(self, pcm: bytes) -> None:
        """See ``PhoneLine``."""
        await self._send(NARROW, pcm)

    async def press(self, key: str) -> None:
        """See ``PhoneLine``."""
        await self._send(DTMF, key.encode())

    async def hang_up(self) -> None:
        """See ``PhoneLine``."""
        await self._send(HANGUP)
        self._writer.close()


@asynccontextmanager
async def twilio_line(address: str, parameters: Mapping[str, str]) -> AsyncIterator[TwilioLine]:
    """Call a server as Twilio does. Raises ``CommandError`` when it does not answer."""
    try:
        async with connect(address, open_timeout=CONNECT_S) as socket:
            line = TwilioLine(socket)
            await line.start(parameters)
            yield line
    except (OSError, InvalidHandshake, InvalidURI, TimeoutError) as error:
        raise CommandError(f"{address}: does not answer: {error}") from error


@asynccontextmanager
async def audiosocket_line(
    host: str, port: int, call_id: uuid.UUID
) -> AsyncIterator[AudioSocketLine]:
    """Call a server as Asterisk does. Raises ``CommandError`` when it does not
    answer.
    """
    try:
        async with asyncio.timeout(CONNECT_S):
            reader, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError) as error:
        raise CommandError(f"{host}:{port}: does not answer: {error}") from error
    try:
        line = AudioSocketLine(reader, writer)
        await line.start(call_id)
        yield line
    finally:
        writer.close()
