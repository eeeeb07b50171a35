"""Where RTVI is served, who may call, and how its sessions begin."""

from collections.abc import Sequence
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
from voicechat.dialects.rtvi.rules import RTVI, SETTINGS, error_text
from voicechat.errors import Status
from voicechat.session.types import TurnDetection

PATHS = ("/v1/rtvi", "/v1/rtvi/{agent}")


class RTVIEndpoint(Endpoint):
    """See ``Endpoint``."""

    paths = PATHS

    @override
    def identify(self, handshake: Handshake, frames: Sequence[Frame]) -> Caller:
        agent, model = handshake.variables.get("agent", ""), handshake.query.get("model", "")
        return Caller(arrival=Arrival(agent=agent, model=model))

    @override
    def open(self, connection: Connection) -> Opening:
        voice = replace(SETTINGS.voice, voice=connection.pick_voice(connection.agent.voice))
        detection = TurnDetection() if connection.hands_free else None
        detection = connection.agent.turn_detection or detection
        settings = replace(SETTINGS, voice=voice, turn_detection=detection)
        settings = with_agent(settings, connection.agent)
        if tools := connection.agent.client_tools:
            chat = replace(settings.chat, options={"tools": list(tools)}, answers_tools=True)
            settings = replace(settings, chat=chat)
        return Opening(dialect=RTVI(connection, settings), settings=settings)

    @override
    def refuse(self, status: Status, message: str, *, restarting: bool) -> Refused:
        frames = (error_text(message, fatal=True),)
        if status is not Status.AT_CAPACITY:
            return Refused(frames, 1008)
        return Refused(frames, 1012 if restarting else 1013)
