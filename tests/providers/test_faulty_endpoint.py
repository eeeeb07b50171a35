"""What a faulty server does to the OpenAI chat model in a chain, as the second table of
``docs/failures.md`` says.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial

import pytest

from tests.conftest import ROOT
from tests.providers.faulty_endpoint import FAULTS, faulty, not_accepting, refusing
from voicechat.errors import ProviderError
from voicechat.providers.interfaces import ChatRequest, TextDelta
from voicechat.providers.openai import open_chat_model
from voicechat.runtime.fallback.chat import ChatChain
from voicechat.runtime.fallback.link import ChainLink
from voicechat.runtime.fallback.policy import StageTimeouts
from voicechat.testing.conformance import leaving_nothing
from voicechat.testing.scripted import ScriptedModel

pytestmark = pytest.mark.real_time

PAGE = ROOT / "docs" / "failures.md"
ASKED = ChatRequest(messages=({"role": "user", "content": "hello"},))
TIMEOUTS = StageTimeouts(first_s=2, between_s=0.5)
"""With a fallback the endpoint has half of the first."""
SERVERS: Mapping[str, Callable[[], AbstractAsyncContextManager[str]]] = {
    "refuses the connection": refusing,
    "does not accept the connection": not_accepting,
} | {name: partial(faulty, fault) for name, fault in FAULTS.items()}


def rows() -> list[tuple[str, str, str]]:
    lines = [
        line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| the server ")
    ]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [(fault.removeprefix("the server "), kind, outcome) for fault, kind, outcome in cells]


def test_the_table_has_every_fault() -> None:
    assert [fault for fault, _, _ in rows()] == list(SERVERS)


@pytest.mark.parametrize(
    ("fault", "kind", "outcome"), rows(), ids=lambda cell: cell.replace(" ", "-")
)
async def test_each_fault_ends_as_the_table_says_and_leaves_nothing(
    fault: str, kind: str, outcome: str
) -> None:
    async with leaving_nothing(), SERVERS[fault]() as base_url:
        model = open_chat_model(model="m", base_url=base_url)
        first = ChainLink("llm.default", model)
        chain = ChatChain(
            [first, ChainLink("llm.spare", ScriptedModel(replies=[["spare"]]))], TIMEOUTS
        )
        assert await played(chain) == outcome
        assert [failed.value for failed in first.failures] == ([] if kind == "-" else [kind])
        await first.aclose()


async def played(chain: ChatChain) -> str:
    """Ask once, within the deadlines; say in the table's words what it came to."""
    text = ""
    async with asyncio.timeout(
        20
    ):  # far beyond the deadlines: it only keeps a hanging test from hanging for ever
        try:
            async for part in chain.reply(ASKED):
                text += part.text if isinstance(part, TextDelta) else ""
        except ProviderError:
            return f"{text!r}, then an error" if text else "an error"
    return "the fallback answers" if text == "spare" else f"{text!r}"
