"""Speaks a given text through the same pipeline as a chat model's reply."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing

from voicechat.errors import RemoteProtocolError, Status
from voicechat.providers.interfaces import (
    ChatRequest,
    ReplyFinished,
    ReplyPart,
    SpeechSynthesizer,
    TextDelta,
)
from voicechat.server.auth import Principal
from voicechat.server.metering import MeteredSynthesizer
from voicechat.server.rest.backend import Backend
from voicechat.server.rest.failures import ServiceFailedError
from voicechat.server.rest.spoken_reply import FIRST_REPLY, SpokenReply
from voicechat.session.effects import StartReply
from voicechat.session.notices import Notice
from voicechat.session.types import ChatSettings, VoiceSettings

MAX_TEXT_CHARACTERS = 20_000
"""About half an hour of speech, and below the length at which a reply is cut."""


class FixedTextModel:
    """A `ChatModel` whose reply is the given texts, each as a paragraph."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts

    async def reply(self, request: ChatRequest) -> AsyncIterator[ReplyPart]:
        """Yield the texts, whatever the request."""
        for text in self._texts:
            yield TextDelta(f"{text}\n")
        yield ReplyFinished()


def check_texts(texts: list[str]) -> list[str]:
    """Check that the texts are not empty and within the limit."""
    characters = sum(map(len, texts))
    if characters > MAX_TEXT_CHARACTERS:
        raise ValueError(f"{characters} characters are more than {MAX_TEXT_CHARACTERS}")
    if not any(text.strip() for text in texts):
        raise ValueError("there is nothing to say")
    return texts


def speak_texts(
    backend: Backend,
    principal: Principal,
    texts: Sequence[str],
    synthesizer: SpeechSynthesizer,
    voice: VoiceSettings,
) -> AsyncGenerator[Notice, None]:
    """Speak ``texts`` sentence by sentence; see ``SpokenReply.messages``.

    ``principal`` is charged for the audio.
    """
    start = StartReply(reply=FIRST_REPLY, messages=(), chat=ChatSettings(), voice=voice)
    paid = MeteredSynthesizer(synthesizer, principal.account)
    model = backend.services.for_speech(FixedTextModel(texts))
    reply = SpokenReply(start, model, paid, threads=backend.threads, limits=backend.limits)
    return _spoken(reply.messages())


async def _spoken(messages: AsyncGenerator[Notice, None]) -> AsyncGenerator[Notice, None]:
    """Report a text that is entirely hidden as an invalid parameter.

    For a model an empty reply is a failure; here the client's text is the cause.
    """
    async with aclosing(messages):
        try:
            async for message in messages:
                yield message
        except ServiceFailedError as error:
            if error.status is not Status.LLM_FAILED:
                raise
            raise nothing_to_speak() from error


def nothing_to_speak() -> RemoteProtocolError:
    """Return the error for a text that cannot be spoken."""
    return RemoteProtocolError(
        Status.INVALID_PARAMETER, "text: there is nothing in it that can be spoken"
    )
