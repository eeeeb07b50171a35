"""A device in memory: the dialect on the real session and runtime, in virtual time."""

import json
import random
from dataclasses import dataclass, field

from voicechat.dialects.base import Connection, Handshake
from voicechat.dialects.xiaozhi.device_tools import Vision
from voicechat.dialects.xiaozhi.dialect import DeviceOptions, XiaozhiDialect
from voicechat.session.agent import Agent
from voicechat.session.types import Settings
from voicechat.testing.device_player import DevicePlayer
from voicechat.testing.harness import ScriptedHarness

HELLO = {
    "type": "hello",
    "version": 1,
    "transport": "websocket",
    "audio_params": {
        "format": "opus",
        "sample_rate": 16000,
        "channels": 1,
        "frame_duration": 60,
    },
}


def open_dialect(
    agent: Agent | None = None,
    *,
    headers: dict[str, str] | None = None,
    options: DeviceOptions | None = None,
    vision: Vision | None = None,
    hands_free: bool = False,
    settings: Settings | None = None,
) -> XiaozhiDialect:
    connection = Connection(
        handshake=Handshake(headers=headers or {}),
        session_id="s1",
        hands_free=hands_free,
        agent=agent or Agent(),
    )
    return XiaozhiDialect(
        connection,
        settings or Settings(),
        options=options or DeviceOptions(),
        vision=vision or Vision(),
    )


@dataclass(kw_only=True)
class DeviceHarness(ScriptedHarness):
    """A conversation with a device that says what the test lets it say."""

    dialect: XiaozhiDialect = field(default_factory=open_dialect)

    def say(self, **message: object) -> None:
        """Send a message of the device."""
        self.send_frame(json.dumps(message))

    def hello(self, **changes: object) -> None:
        """Say hello; ``changes`` replace its keys."""
        self.say(**{**HELLO, **changes})

    def listen(self, state: str, **more: object) -> None:
        """Send ``listen``."""
        self.say(session_id="s1", type="listen", state=state, **more)

    @property
    def messages(self) -> list[dict[str, object]]:
        """All JSON messages that the device was sent."""
        return [json.loads(frame) for frame in self.frames if isinstance(frame, str)]

    def said(self, kind: str, **values: object) -> list[dict[str, object]]:
        """The messages of a type that have these values."""
        wanted = {"type": kind, **values}
        return [each for each in self.messages if wanted.items() <= each.items()]

    @property
    def packets(self) -> list[bytes]:
        """All binary frames that the device was sent."""
        return [frame for frame in self.frames if isinstance(frame, bytes)]

    def play(self, player: DevicePlayer, delay_ms: int = 0, seed: int = 0) -> DevicePlayer:
        """Play what was sent, up to ``delay_ms`` late, in its order. What is sent
        within a millisecond is one segment of the connection, and arrives together.
        """
        chance, sent_ms, late_ms, arrived_ms = random.Random(seed), -1, 0, 0
        for sent in self.socket.sent:
            at_ms = round(sent.at_s * 1000)
            if at_ms > sent_ms + 1:
                late_ms = chance.randint(0, delay_ms)
            sent_ms = at_ms
            arrived_ms = max(arrived_ms, at_ms + late_ms)
            player.receive(sent.frame, arrived_ms)
        return player
