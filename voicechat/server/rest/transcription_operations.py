"""The endpoints of transcription, for the router."""

from voicechat.server.rest.backend import Backend
from voicechat.server.rest.non_stream import NonStream
from voicechat.server.rest.operation import Operation
from voicechat.server.rest.transcribing import Transcriber
from voicechat.server.rest.transcriptions import Transcriptions


def transcription_operations(backend: Backend, transcriber: Transcriber) -> list[Operation]:
    """List them: tasks, the contract's request that waits, and OpenAI's."""
    return [*Transcriptions(backend, transcriber).operations(), *NonStream(backend, transcriber).operations()]
