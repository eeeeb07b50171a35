"""Where the recognition socket is served, who may call, and how its sessions begin."""

from collections.abc import Sequence

from typing_extensions import override

from voicechat.dialects.base import (
    Caller,
    Connection,
    Endpoint,
    Frame,
    Handshake,
    Kind,
    Opening,
    Refused,
)
from voicechat.dialects.stream_speech.options import parse_query
from voicechat.dialects.stream_speech.rules import StreamSpeech
from voicechat.errors import Status
from voicechat.names import DEFAULT
from voicechat.schema.json_text import write_json
from voicechat.session.types import Settings

PATHS = (
    "/api/open-apis/projects/{project}/easyllms/stream-speech",
    "/api/open-apis/projects/easyllms/stream-speech",
    "/api/open-apis/easyllms/stream-speech",
)
"""With the project and, as public clients do, without: then the key's default project
is used.
"""


class StreamSpeechEndpoint(Endpoint):
    """See ``Endpoint``."""

    kind = Kind.RECOGNITION
    paths = PATHS

    @override
    def identify(self, handshake: Handshake, frames: Sequence[Frame]) -> Caller:
        options = parse_query(handshake.query)
        return Caller(
            recognizer=handshake.query.get("easyllm_id") or DEFAULT,
            recognizer_path="easyllm_id",
            resume=options.session,
            received=options.received,
        )

    @override
    def open(self, connection: Connection) -> Opening:
        options = parse_query(connection.handshake.query)
        return Opening(dialect=StreamSpeech(options), settings=Settings(input=options.input))

    @override
    def refuse(self, status: Status, message: str, *, restarting: bool) -> Refused:
        if status is not Status.AT_CAPACITY:
            return Refused(code=1008)
        return Refused(code=1012 if restarting else 1013)

    @override
    def resumed(self, offset_bytes: int) -> Frame:
        return write_json({"status": "ok", "offset": offset_bytes})
