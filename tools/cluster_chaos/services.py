"""The cluster's scripted services, as plug-ins of each server."""

import secrets
from collections.abc import AsyncIterator

from tools.cluster_chaos.script import REST, answer_to
from voicechat.bench.services import open_recognizer
from voicechat.providers.interfaces import (
    ChatModel,
    ChatRequest,
    ReplyPart,
    SpeechSynthesizer,
)
from voicechat.testing.scripted import ScriptedModel, ScriptedSynthesizer

__all__ = ["open_chat_model", "open_recognizer", "open_synthesizer"]


class _Model:
    def reply(self, request: ChatRequest) -> AsyncIterator[ReplyPart]:
        said = [str(each["content"]) for each in request.messages if each["role"] == "user"]
        answer = answer_to(said, secrets.token_hex(6))
        return ScriptedModel(((answer.text, REST),), first_ms=100, delta_ms=50).reply(request)


def open_chat_model() -> ChatModel:
    """Open the model that numbers its answers."""
    return _Model()


def open_synthesizer() -> SpeechSynthesizer:
    """Open the synthesiser of a constant signal."""
    return ScriptedSynthesizer(rate_hz=16_000, ms_per_character=30, first_ms=50)
