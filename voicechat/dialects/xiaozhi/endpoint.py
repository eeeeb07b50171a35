"""Where devices connect, how they are identified, and how their sessions begin."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from typing_extensions import override

from voicechat.agents import Arrival
from voicechat.dialects.base import (
    Caller,
    Connection,
    Endpoint,
    Frame,
    Handshake,
    Opening,
    Refused,
    with_agent,
)
from voicechat.dialects.xiaozhi.device_tools import Vision
from voicechat.dialects.xiaozhi.dialect import DeviceOptions, XiaozhiDialect
from voicechat.dialects.xiaozhi.emotions import instructions
from voicechat.errors import Status
from voicechat.session.types import Settings

PATH = "/xiaozhi/v1/"
MAX_DEVICE_CHARACTERS = 64
"""The longest id of a device, which is its MAC address."""


class XiaozhiEndpoint(Endpoint):
    """See ``Endpoint``. A device sends its id in ``Device-Id``, or in the query."""

    name = "xiaozhi"
    paths = (PATH, PATH.removesuffix("/"))

    def __init__(
        self,
        options: DeviceOptions | None = None,
        vision: Callable[[Handshake], Vision] = lambda _: Vision(),
    ) -> None:
        """``vision`` returns where the device of a handshake sends its photos."""
        self._options = options or DeviceOptions()
        self._vision = vision

    @override
    def identify(self, handshake: Handshake, frames: Sequence[Frame]) -> Caller:
        return Caller(
            arrival=Arrival(agent=handshake.query.get("agent", ""), device=device_of(handshake))
        )

    @override
    def open(self, connection: Connection) -> Opening:
        settings = Settings()
        voice = connection.pick_voice(connection.agent.voice)
        settings = replace(settings, voice=replace(settings.voice, voice=voice))
        agent = connection.agent
        if self._options.emotions:
            agent = agent.with_instructions(f"\n\n{instructions(agent.language)}")
        settings = with_agent(settings, agent)
        dialect = XiaozhiDialect(
            connection,
            settings,
            options=self._options,
            vision=self._vision(connection.handshake),
        )
        return Opening(dialect=dialect, settings=settings)

    @override
    def refuse(self, status: Status, message: str, *, restarting: bool) -> Refused:
        if status is not Status.AT_CAPACITY:
            return Refused(code=1008)
        return Refused(code=1012 if restarting else 1013)


def device_of(handshake: Handshake) -> str:
    """Return the id that a device sends; empty: it sends none."""
    said = handshake.headers.get("device-id", "") or handshake.query.get("device-id", "")
    return said.strip().lower()[:MAX_DEVICE_CHARACTERS]
