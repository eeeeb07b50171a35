"""Builds the chains: each configured service is a link, and its chain is the service
followed by its fallbacks.
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias, TypeVar

from voicechat.providers.interfaces import ChatModel, SpeechRecognizer, SpeechSynthesizer
from voicechat.runtime.fallback.chat import ChatChain
from voicechat.runtime.fallback.link import ChainLink
from voicechat.runtime.fallback.policy import StageTimeouts
from voicechat.runtime.fallback.recognition import RecognitionChain
from voicechat.runtime.fallback.speech import SpeechChain
from voicechat.session.limits import SessionLimits

P = TypeVar("P")

Orders: TypeAlias = Mapping[str, Sequence[str]]
"""Service name to the names of its chain, in order."""

MARGIN = 0.05
"""A chain of recognisers gives up this share of ``transcript_ms`` before the session
does, which waits for the last result too. So the service's failure is reported, rather
than the stream cancelled.
"""


def order_of(name: str, fallbacks: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return ``name`` and all its fallbacks, in the order in which they are asked, each
    once.

    Raises ``ValueError`` that names the unknown service, or the one that would be its
    own fallback.
    """
    order: list[str] = []

    def add(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            raise ValueError(f"{name} would be its own fallback: {' -> '.join((*path, name))}")
        if name not in fallbacks:
            configured = ", ".join(sorted(fallbacks))
            raise ValueError(
                f"there is no service {name!r} of this kind (configured: {configured})"
            )
        if name not in order:
            order.append(name)
        for fallback in fallbacks[name]:
            add(fallback, (*path, name))

    add(name, ())
    return tuple(order)


def chat_chains(
    links: Mapping[str, ChainLink[ChatModel]], orders: Orders, limits: SessionLimits
) -> dict[str, ChatModel]:
    """Build the chains of chat models."""
    timeouts = _timeouts(limits.first_token_ms, limits.between_tokens_ms, limits)
    return {name: ChatChain(_linked(order, links), timeouts) for name, order in orders.items()}


def speech_chains(
    links: Mapping[str, ChainLink[SpeechSynthesizer]], orders: Orders, limits: SessionLimits
) -> dict[str, SpeechSynthesizer]:
    """Build the chains of synthesisers."""
    timeouts = _timeouts(limits.first_audio_ms, limits.between_audio_ms, limits)
    return {name: SpeechChain(_linked(order, links), timeouts) for name, order in orders.items()}


def recognition_chains(
    links: Mapping[str, ChainLink[SpeechRecognizer]], orders: Orders, limits: SessionLimits
) -> dict[str, SpeechRecognizer]:
    """Build the chains of recognisers."""
    last_result_s = limits.transcript_ms / 1000 * (1 - MARGIN)
    return {
        name: RecognitionChain(_linked(order, links), last_result_s)
        for name, order in orders.items()
    }


def _linked(order: Sequence[str], links: Mapping[str, ChainLink[P]]) -> tuple[ChainLink[P], ...]:
    return tuple(links[name] for name in order)


def _timeouts(first_ms: int, between_ms: int, limits: SessionLimits) -> StageTimeouts:
    return StageTimeouts(
        first_s=first_ms / 1000,
        between_s=between_ms / 1000,
        thinking_s=limits.thinking_ms / 1000,
    )
