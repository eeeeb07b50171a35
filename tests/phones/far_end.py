"""The far end of a media stream, in memory: a network with a delay, a player that
buffers, and marks that are returned when they are reached or cleared.
"""

import asyncio
import base64
import json
import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from voicechat.dialects.base import Frame
from voicechat.runtime.socket import Pong
from voicechat.testing.socket import MemorySocket

BYTES_PER_MS = 8
"""Of mu-law at 8 kHz."""
STREAM = "MZ1"


@dataclass(slots=True)
class FarEnd(MemorySocket):
    """Twilio's side of one call. Delays are seconds, one way, in order."""

    delay_s: float = 0.05
    jitter_s: float = 0.0
    seed: int = 0
    heard: list[float] = field(default_factory=list)
    """For each clear, how many milliseconds of the reply had been played by then."""
    returned: list[str] = field(default_factory=list)
    _queue: deque[bytes | str] = field(default_factory=deque)
    played_bytes: int = 0
    _head_since_s: float = 0.0
    _timer: asyncio.TimerHandle | None = None
    _arrives_s: dict[str, float] = field(default_factory=dict)
    _random: random.Random = field(default_factory=random.Random)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def begin(self, **parameters: str) -> None:
        start = {
            "streamSid": STREAM,
            "callSid": "CA1",
            "customParameters": parameters,
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        }
        self.send_from_client(json.dumps({"event": "connected", "protocol": "Call"}))
        self.say(event="start", start=start)

    def say(self, **message: Any) -> None:
        frame = json.dumps({"streamSid": STREAM, **message})
        self._later("up", lambda: self.send_from_client(frame))

    def press(self, key: str) -> None:
        self.say(event="dtmf", dtmf={"track": "inbound_track", "digit": key})

    def send_now(self, frame: Frame | Pong) -> None:
        MemorySocket.send_now(self, frame)
        if isinstance(frame, str):
            message = json.loads(frame)
            self._later("down", lambda: self._arrive(message))

    def _later(self, way: str, act: Any) -> None:
        loop = asyncio.get_running_loop()
        at_s = loop.time() + self.delay_s + self._random.uniform(0, self.jitter_s)
        at_s = max(at_s, self._arrives_s.get(way, 0.0) + 1e-6)  # TCP keeps the order
        self._arrives_s[way] = at_s
        loop.call_at(at_s, act)

    def _arrive(self, message: dict[str, Any]) -> None:
        now_s = asyncio.get_running_loop().time()
        match message["event"]:
            case "media":
                if not self._queue:
                    self._head_since_s = now_s
                self._queue.append(base64.b64decode(message["media"]["payload"]))
            case "mark":
                self._queue.append(message["mark"]["name"])
                if len(self._queue) == 1:
                    self._head_since_s = now_s
            case "clear":
                part = 0.0
                if self._queue and isinstance(self._queue[0], bytes):
                    part = (now_s - self._head_since_s) * 1000
                self.heard.append(self.played_bytes / BYTES_PER_MS + part)
                marks = [item for item in self._queue if isinstance(item, str)]
                self._queue.clear()
                self.played_bytes = 0
                for mark in marks:
                    self._return(mark)
            case event:
                raise AssertionError(f"Twilio knows no {event}")
        self._play()

    def _play(self) -> None:
        """Play what is due, and come again when the head of the queue ends."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        loop = asyncio.get_running_loop()
        while self._queue:
            head = self._queue[0]
            if isinstance(head, str):
                self._queue.popleft()
                self._return(head)
                continue
            ends_s = self._head_since_s + len(head) / BYTES_PER_MS / 1000
            if ends_s > loop.time() + 1e-9:
                self._timer = loop.call_at(ends_s, self._play)
                return
            self._queue.popleft()
            self.played_bytes += len(head)
            self._head_since_s = ends_s

    def _return(self, mark: str) -> None:
        self.returned.append(mark)
        self.say(event="mark", mark={"name": mark})
