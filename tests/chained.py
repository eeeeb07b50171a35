"""Services as they are configured: chains of one, which time it. It has answered
before, so it is not cold.
"""

from voicechat.providers.interfaces import ChatModel, SpeechSynthesizer
from voicechat.runtime.fallback.chains import chat_chains, speech_chains
from voicechat.runtime.fallback.link import ChainLink
from voicechat.session.limits import SessionLimits

ALONE = {"default": ("default",)}


def chained_model(model: ChatModel, limits: SessionLimits) -> ChatModel:
    link = ChainLink("llm.default", model)
    link.note_use()
    return chat_chains({"default": link}, ALONE, limits)["default"]


def chained_voice(synthesizer: SpeechSynthesizer, limits: SessionLimits) -> SpeechSynthesizer:
    link = ChainLink("tts.default", synthesizer)
    link.note_use()
    return speech_chains({"default": link}, ALONE, limits)["default"]
