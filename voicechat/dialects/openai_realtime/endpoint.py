"""Where the Realtime protocol is served, who may call, and how its sessions begin."""

from collections.abc import Sequence

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
)
from voicechat.dialects.openai_realtime.events import EventWriter, code_of
from voicechat.dialects.openai_realtime.rules import OpenAIRealtime
from voicechat.dialects.openai_realtime.session import configuration_from, first_configuration
from voicechat.errors import Status
from voicechat.schema.json_text import read_object

PATHS = ("/v1/realtime", "/api/open-apis/v1/realtime")


class OpenAIRealtimeEndpoint(Endpoint):
    """See ``Endpoint``."""

    paths = PATHS
    protocols = ("realtime",)

    @override
    def identify(self, handshake: Handshake, frames: Sequence[Frame]) -> Caller:
        model = handshake.query.get("model", "")
        return Caller(arrival=Arrival(model=model, any_model=True))

    @override
    def open(self, connection: Connection) -> Opening:
        transcription = connection.handshake.query.get("intent") == "transcription"
        if connection.configuration:
            bound = read_object(connection.configuration)
            configuration = configuration_from(bound, connection)
        else:
            configuration = first_configuration(connection, transcription=transcription)
        dialect = OpenAIRealtime(connection, configuration)
        return Opening(dialect=dialect, settings=dialect.settings)

    @override
    def refuse(self, status: Status, message: str, *, restarting: bool) -> Refused:
        # A browser cannot read an answer that comes before the upgrade, so the refusal
        # is sent after it.
        writer = EventWriter("")
        ours = status >= Status.INTERNAL
        frame = (
            writer.write_failure(status, message)
            if ours
            else writer.write_error(code_of(status), message)
        )
        if status is not Status.AT_CAPACITY:
            return Refused((frame,), 1008)
        return Refused((frame,), 1012 if restarting else 1013)
