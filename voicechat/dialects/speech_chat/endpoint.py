"""Where the conversation socket is served, who may call, and how its sessions begin."""

from collections.abc import Mapping, Sequence
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
from voicechat.dialects.speech_chat.codec import typed_text
from voicechat.dialects.speech_chat.rules import UPDATED, SpeechChat
from voicechat.errors import RemoteProtocolError, Status
from voicechat.schema.document import DOCUMENT_SETTINGS

PATHS = (
    "/api/open-apis/projects/{project}/chat/speech-chat",
    "/api/open-apis/projects/chat/speech-chat",
    "/api/open-apis/chat/speech-chat",
)
"""With the project and, as public clients do, without: then the key's default project
is used.
"""


class SpeechChatEndpoint(Endpoint):
    """See ``Endpoint``."""

    paths = PATHS

    def __init__(
        self,
        *,
        update_reply: str = UPDATED,
        strict_ping: bool = False,
        most_errors: int = 100,
    ) -> None:
        """See ``SpeechChat``."""
        self._update_reply = update_reply
        self._strict_ping = strict_ping
        self._most_errors = most_errors

    @override
    def identify(self, handshake: Handshake, frames: Sequence[Frame]) -> Caller:
        query = handshake.query
        return Caller(
            arrival=Arrival(model=_named("model", query)),
            recognizer=_named("asr_easyllm_id", query),
            synthesizer=_named("tts_easyllm_id", query),
            recognizer_path="asr_easyllm_id",
            synthesizer_path="tts_easyllm_id",
        )

    @override
    def open(self, connection: Connection) -> Opening:
        voice = DOCUMENT_SETTINGS.voice
        settings = replace(
            DOCUMENT_SETTINGS,
            voice=replace(
                voice, voice=connection.pick_voice(connection.agent.voice or voice.voice)
            ),
        )
        dialect = SpeechChat(
            connection,
            update_reply=self._update_reply,
            strict_ping=self._strict_ping,
            most_errors=self._most_errors,
        )
        return Opening(dialect=dialect, settings=with_agent(settings, connection.agent))

    @override
    def refuse(self, status: Status, message: str, *, restarting: bool) -> Refused:
        # A browser cannot read an answer that comes before the upgrade, so the refusal
        # is sent after it.
        frames = (typed_text("chat.created", status, message),)
        if status is not Status.AT_CAPACITY:
            return Refused(frames, 1008)
        return Refused(frames, 1012 if restarting else 1013)


def _named(parameter: str, query: Mapping[str, str]) -> str:
    name = query.get(parameter, "")
    if not name:
        raise RemoteProtocolError(Status.INVALID_PARAMETER, f"{parameter}: is missing")
    return name
