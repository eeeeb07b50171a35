"""Services as they are configured: chains of one, which time it. It has answered
before, so it is not cold.
"""

from dataclasses import dataclass, replace

from voicechat.providers.interfaces import ChatModel, SpeechSynthesizer
from voicechat.runtime.conversation import SessionProviders
from voicechat.runtime.fallback.chains import chat_chains, speech_chains
from voicechat.runtime.fallback.link import ChainLink
from voicechat.session.limits import SessionLimits
from voicechat.testing.harness import ScriptedHarness

ALONE = {"default": ("default",)}


def chained_model(model: ChatModel, limits: SessionLimits) -> ChatModel:
    link = ChainLink("llm.default", model)
    link.note_use()
    return chat_chains({"default": link}, ALONE, limits)["default"]


def chained_voice(synthesizer: SpeechSynthesizer, limits: SessionLimits) -> SpeechSynthesizer:
    link = ChainLink("tts.default", synthesizer)
    link.note_use()
    return speech_chains({"default": link}, ALONE, limits)["default"]


@dataclass(kw_only=True)
class ChainedHarness(ScriptedHarness):
    """Model and synthesiser are chains of one: only chains time a service."""

    def providers(self) -> SessionProviders:
        model = chained_model(self.model, self.limits)
        return replace(
            super().providers(),
            models=lambda _: model,
            synthesizer=chained_voice(self.synthesizer, self.limits),
        )
