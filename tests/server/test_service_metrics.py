import pytest
from prometheus_client import generate_latest

from voicechat.errors import FailureKind, ProviderError
from voicechat.providers.interfaces import ChatRequest
from voicechat.runtime.fallback.chat import ChatChain
from voicechat.runtime.fallback.link import ChainLink
from voicechat.runtime.fallback.policy import ServicePolicy, StageTimeouts
from voicechat.runtime.services import Services
from voicechat.server.metrics import Metrics
from voicechat.testing.scripted import Failure, ScriptedModel


class SlowModel(ScriptedModel):
    real_time_factor = 1.5


async def test_a_model_that_is_slower_than_speech_is_shown() -> None:
    links = [ChainLink("llm.slow", SlowModel()), ChainLink("llm.other", ScriptedModel())]
    chain = ChatChain(links, StageTimeouts(first_s=5, between_s=5))
    text = generate_latest(Metrics(Services({}, {"default": chain}, {})).registry).decode()
    shown = [line for line in text.splitlines() if "real_time_factor{" in line]
    assert shown == ['voicechat_service_real_time_factor{service="llm.slow"} 1.5']


async def test_failures_fallbacks_and_breakers_are_counted_by_configured_name() -> None:
    policy = ServicePolicy(breaker_failures=1, breaker_pause_s=100)
    failing = ChainLink(
        "llm.default", ScriptedModel(failure=Failure(kind=FailureKind.BROKEN, calls=9)), policy
    )
    spare = ChainLink("llm.spare", ScriptedModel())
    timeouts = StageTimeouts(first_s=5, between_s=5)
    alone, chained = ChatChain([failing], timeouts), ChatChain([failing, spare], timeouts)
    services = Services(
        {}, {"default": chained, "alone": alone, "spare": ChatChain([spare], timeouts)}, {}
    )
    registry = Metrics(services).registry

    def shown(line: str) -> bool:
        return line in generate_latest(registry).decode().splitlines()

    assert shown('voicechat_service_state{service="llm.default",state="closed"} 1.0')
    for _ in range(2):
        async for _ in chained.reply(ChatRequest(messages=())):
            pass
    with pytest.raises(ProviderError):
        await anext(alone.reply(ChatRequest(messages=())))
    assert shown('voicechat_service_failures_total{kind="broken",service="llm.default"} 1.0')
    assert shown('voicechat_fallbacks_total{by="llm.spare",service="llm.default"} 2.0')
    assert shown('voicechat_service_state{service="llm.default",state="open"} 1.0')
    assert shown('voicechat_service_state{service="llm.default",state="closed"} 0.0')
    assert shown('voicechat_service_state{service="llm.spare",state="closed"} 1.0')
    assert shown('voicechat_service_waiting{service="llm.spare"} 0.0')
    assert (
        len([line for line in generate_latest(registry).decode().splitlines() if "state=" in line])
        == 6
    )
