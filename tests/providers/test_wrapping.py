"""Providers around providers, and providers that somebody else wrote without our base
classes.
"""

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from voicechat.config import load_config
from voicechat.config.services import build_services
from voicechat.errors import FailureKind, ProviderError
from voicechat.providers.interfaces import (
    AudioChunk,
    ChatModel,
    ChatRequest,
    ReplyPart,
    SpeechSynthesizer,
    SynthesizerProvider,
    TextDelta,
    VoiceOptions,
)
from voicechat.providers.wrapping import (
    Wrapping,
    WrappingModel,
    WrappingRecognizer,
    WrappingSynthesizer,
    as_provider,
    as_recognizer,
    as_synthesizer,
)
from voicechat.server.serve import waiting_streams
from voicechat.testing.scripted import ScriptedModel, ScriptedRecognizer, ScriptedSynthesizer


class Everything(SynthesizerProvider):
    """Overrides all there is; ``lived`` says what was called."""

    def __init__(self) -> None:
        self.lived: list[str] = []

    async def start(self) -> None:
        self.lived.append("start")

    async def aclose(self) -> None:
        self.lived.append("aclose")

    async def probe(self) -> None:
        self.lived.append("probe")

    @property
    def waiting_streams(self) -> int:
        return 7

    @property
    def first_use_grace_s(self) -> float:
        return 8.0

    @property
    def voices(self) -> tuple[str, ...]:
        return ("a", "b")

    def shapes_prosody(self, speech_rate: float, pitch_rate: float) -> bool:
        return pitch_rate == 1

    async def synthesize(self, text: str, voice: VoiceOptions) -> AsyncIterator[AudioChunk]:
        yield AudioChunk(text.encode(), 8_000)

    async def recognize(self, audio: object, options: object) -> AsyncIterator[str]:
        yield "heard"

    async def reply(self, request: ChatRequest) -> AsyncIterator[ReplyPart]:
        yield TextDelta("said")


def duck() -> Any:
    """Give the same by attributes alone."""
    inner = Everything()
    names = "start aclose probe waiting_streams voices shapes_prosody synthesize recognize reply lived".split()
    return SimpleNamespace(**{name: getattr(inner, name) for name in names})


async def calls(wrapped: Wrapping[Any]) -> list[object]:
    await wrapped.start()
    await wrapped.probe()
    await wrapped.aclose()
    return [wrapped.has_probe, wrapped.waiting_streams]


@pytest.mark.parametrize("make", [Everything, duck], ids=["derived", "duck-typed"])
async def test_a_wrapping_provider_is_the_inner_one_in_all_that_it_does_not_override(
    make: Any,
) -> None:
    inner = make()
    for wrapped in (WrappingModel(inner), WrappingRecognizer(inner), WrappingSynthesizer(inner)):
        assert await calls(wrapped) == [True, 7]
    assert inner.lived == ["start", "probe", "aclose"] * 3
    voice = WrappingSynthesizer(WrappingSynthesizer(inner))
    assert voice.voices == ("a", "b")
    assert (voice.shapes_prosody(2, 1), voice.shapes_prosody(1, 2)) == (True, False)
    assert [chunk.pcm async for chunk in voice.synthesize("xy", VoiceOptions())] == [b"xy"]
    assert voice.for_one_reply() is voice


async def test_what_a_service_lacks_is_as_in_the_base_class() -> None:
    for service in (ScriptedModel(), object()):
        provider = as_provider(service)
        await provider.start()
        await provider.aclose()
        assert (provider.has_probe, provider.waiting_streams) == (False, 0)
    voice = as_synthesizer(ScriptedSynthesizer())
    assert not voice.shapes_prosody(2, 1)
    assert voice.for_one_reply() is voice
    assert as_recognizer(ScriptedRecognizer()).first_use_grace_s == 0


async def test_a_wrapping_voice_is_around_the_voice_of_one_reply() -> None:
    class Changing(Everything):
        def for_one_reply(self) -> SpeechSynthesizer:
            return ScriptedSynthesizer()

    outer = WrappingSynthesizer(WrappingSynthesizer(Changing()))
    one = as_synthesizer(outer.for_one_reply())
    assert one.voices == ScriptedSynthesizer().voices
    assert outer.voices == ("a", "b")
    assert type(one) is WrappingSynthesizer


MODULE = """
from voicechat.errors import FailureKind, ProviderError
from voicechat.providers.interfaces import TextDelta

class Bare:
    def __init__(self, text):
        self.text = text
    async def reply(self, request):
        yield TextDelta(self.text)

class Full(Bare):
    lived = ()
    waiting_streams = 2
    async def start(self):
        self.lived += ("start",)
    async def aclose(self):
        self.lived += ("aclose",)
    async def probe(self):
        raise ProviderError("mine", FailureKind.CONNECTIVITY, "down")

def bare(*, text: str):
    return Bare(text)

def full(*, text: str):
    return Full(text)
"""


async def test_anybodys_provider_needs_no_base_class(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "providers_of_somebody.py").write_text(MODULE, "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    file = tmp_path / "voicechat.toml"
    file.write_text(
        '[llm.default]\nprovider = "providers_of_somebody:bare"\ntext = "Hi"\n'
        '[llm.full]\nprovider = "providers_of_somebody:full"\ntext = "Ho"\n',
        "utf-8",
    )
    services = build_services(load_config(file, {"VOICECHAT_DATA_DIR": str(tmp_path)}))
    links: dict[str, Any] = {
        link.name: link for link in services.links if link.name.startswith("llm")
    }
    for name, text in (("default", "Hi"), ("full", "Ho")):
        model: ChatModel = services.models[name]
        assert [part async for part in model.reply(ChatRequest(messages=()))] == [TextDelta(text)]
        await links[f"llm.{name}"].start()
        await links[f"llm.{name}"].aclose()
    assert links["llm.full"].provider.lived == ("start", "aclose")
    assert waiting_streams([as_provider(each) for each in services.distinct()]) == 2


async def test_a_probe_of_anybodys_provider_is_asked() -> None:
    class Probed(ScriptedModel):
        async def probe(self) -> None:
            raise ProviderError("mine", FailureKind.CONNECTIVITY, "down")

    assert as_provider(Probed()).has_probe
    with pytest.raises(ProviderError):
        await as_provider(Probed()).probe()
