"""Whatever a client says in whatever order: each event has its answer, each response ends
once, and both sides agree on the items, their order and their words.
"""

import asyncio
import base64
import random
from typing import Any

import pytest

from tests.openai_realtime.client import MANUAL, PCM_BYTES_PER_MS, Event, RealtimeStage
from tests.openai_realtime.home import Home, mcp
from voicechat.session.types import Message, ToolCall
from voicechat.testing.scripted import ScriptedModel, ScriptedRecognizer, ScriptedSynthesizer
from voicechat.text.words import speaking_ms

LAMP = {"type": "function", "name": "lamp", "parameters": {"type": "object"}}
REPLIES = (
    ("One two three. ", "Four five six seven."),
    ("Let me see. ", ToolCall(0, "call_a", "lamp", "{}")),
    ("I look. ", ToolCall(0, "call_d", "lamp", "{}"), ToolCall(1, "call_e", "read", "{}")),
    ("Yes.",),
    (ToolCall(0, "call_b", "lamp", "{}"), ToolCall(1, "call_c", "lamp", "{}")),
)
ANSWERS = {
    "session.update": ("session.updated",),
    "input_audio_buffer.append": (),
    "input_audio_buffer.commit": ("input_audio_buffer.committed",),
    "input_audio_buffer.clear": ("input_audio_buffer.cleared",),
    "conversation.item.create": ("conversation.item.added", "conversation.item.done"),
    "conversation.item.retrieve": ("conversation.item.retrieved",),
    "conversation.item.truncate": ("conversation.item.truncated",),
    "conversation.item.delete": ("conversation.item.deleted",),
    "response.create": ("response.created",),
    "response.cancel": ("response.done",),
}

WHOLE = {
    "response.output_text": "text",
    "response.output_audio_transcript": "transcript",
    "response.function_call_arguments": "arguments",
    "response.mcp_call_arguments": "arguments",
}
"""Where the done of something says all that its deltas did."""


class Reader(ScriptedSynthesizer):
    """Reads as long as the engine expects of a voice, pauses included."""

    def length_ms(self, text: str) -> int:
        return speaking_ms(text)


class AnyClient:
    """Sends events at random and keeps what it is told, as a client does."""

    def __init__(self, stage: RealtimeStage, chance: random.Random) -> None:
        self._stage = stage
        self._chance = chance
        self._sent: list[tuple[str, str]] = []
        self._items: list[Event] = []

    async def act(self) -> None:
        kind = self._chance.choice(
            [
                *ANSWERS,
                "wait",
                "input_audio_buffer.append",
                "response.create",
                "conversation.item.create",
                "conversation.item.truncate",
            ]
        )
        if kind == "wait":
            await asyncio.sleep(self._chance.choice((0.01, 0.3, 2)))
            return
        event_id = f"e{len(self._sent)}"
        self._sent.append((event_id, kind))
        self._stage.say(kind, event_id=event_id, **self._fields(kind))
        if self._chance.random() < 0.7:
            await asyncio.sleep(0.001)

    def _fields(self, kind: str) -> dict[str, Any]:
        chance = self._chance
        known = [event["item"]["id"] for event in self._stage.of("conversation.item.added")]
        some_item = chance.choice([*known, "unknown"])
        match kind:
            case "session.update":
                modalities = chance.choice((["text"], ["audio"], ["video"]))
                server = mcp(require_approval=chance.choice(("always", "never")))
                tools = chance.choice(([LAMP], [LAMP, server], [LAMP, server]))
                return {"session": {"output_modalities": modalities, "tools": tools}}
            case "input_audio_buffer.append":
                audio = b"\0\1" * (chance.choice((10, 100, 300)) * PCM_BYTES_PER_MS // 2)
                return {"audio": base64.b64encode(audio).decode()}
            case "conversation.item.create":
                after = chance.choice((None, None, "root", some_item))
                return {"item": self._item(), "previous_item_id": after}
            case "conversation.item.retrieve" | "conversation.item.delete":
                return {"item_id": some_item}
            case "conversation.item.truncate":
                deltas = self._stage.of("response.output_audio.delta")
                if deltas and chance.random() < 0.7:
                    some_item = deltas[-1]["item_id"]
                end_ms = chance.choice((0, 200, 500, 90_000))
                return {"item_id": some_item, "content_index": 0, "audio_end_ms": end_ms}
            case "response.create":
                response = chance.choice(
                    (
                        {},
                        {"conversation": "none", "output_modalities": ["text"]},
                        {"input": [{"type": "item_reference", "id": some_item}]},
                        {"max_output_tokens": -1},
                    )
                )
                return {"response": response}
            case "response.cancel" if chance.random() < 0.5:
                made = [event["response"]["id"] for event in self._stage.of("response.created")]
                return {"response_id": chance.choice([*made, "unknown"])}
            case _:
                return {}

    def _item(self) -> dict[str, Any]:
        chance = self._chance
        if chance.random() < 0.3:
            asked = [event["item"] for event in self._stage.of("conversation.item.added")]
            ids = [item["id"] for item in asked if item["type"] == "mcp_approval_request"]
            return {
                "type": "mcp_approval_response",
                "approval_request_id": chance.choice(["unknown", *ids]),
                "approve": chance.random() < 0.7,
            }
        if chance.random() < 0.3:
            call_id = chance.choice(("call_a", "call_b", "unknown"))
            return {"type": "function_call_output", "call_id": call_id, "output": "done"}
        role = chance.choice(("user", "assistant", "system", "nobody"))
        kind = "output_text" if role == "assistant" else "input_text"
        word = f"word{chance.randrange(1000)}"
        return {"type": "message", "role": role, "content": [{"type": kind, "text": word}]}

    def check(self) -> None:
        stage = self._stage
        self._check_answers()
        self._check_responses()
        self._check_items()
        self._check_deltas()
        self._check_heard()
        conversation = stage.harness.dialect._conversation  # type: ignore[attr-defined]
        assert self._order() == [item.id for item in conversation.items]
        history = stage.harness.conversation._machine._core.replies.history  # type: ignore[attr-defined]
        said = [part for item in conversation.items for part in parts_of(item.messages)]
        assert said == parts_of(history.messages)

    def _check_answers(self) -> None:
        """Each event has its answer, or an error that names it."""
        events = self._stage.events
        failed = {event["error"]["event_id"] for event in events if event["type"] == "error"}
        for kind, answers in ANSWERS.items():
            good = [event_id for event_id, each in self._sent if each == kind]
            good = [event_id for event_id in good if event_id not in failed]
            for answer in answers:
                count = len(self._stage.of(answer))
                if kind == "response.cancel" or kind == "conversation.item.create":
                    assert count >= len(good)
                else:
                    assert count == len(good) + (kind == "session.update"), (kind, count, good)

    def _check_responses(self) -> None:
        """Each response that was created is done once, and nothing of it follows."""
        open_ids: set[str] = set()
        ended: set[str] = set()
        for event in self._stage.events:
            response_id = event.get("response_id") or event.get("response", {}).get("id")
            if event["type"] == "response.created":
                assert response_id not in open_ids | ended
                open_ids.add(response_id)
            elif response_id is not None:
                assert response_id in open_ids, event["type"]
                if event["type"] == "response.done":
                    open_ids.remove(response_id)
                    ended.add(response_id)
        assert not open_ids

    def _check_items(self) -> None:
        """Each item that was added is done once, and so is each call of a server."""
        stage = self._stage
        added = [event["item"]["id"] for event in stage.of("conversation.item.added")]
        done = [event["item"]["id"] for event in stage.of("conversation.item.done")]
        assert sorted(added) == sorted(done)
        begun = [event["item_id"] for event in stage.of("response.mcp_call.in_progress")]
        ended = [event["item_id"] for event in stage.of("response.mcp_call.completed")]
        ended += [event["item_id"] for event in stage.of("response.mcp_call.failed")]
        assert sorted(begun) == sorted(ended)

    def _check_deltas(self) -> None:
        """No delta follows the done of what it is a part of, and all of them together
        are what that says.
        """
        pieces: dict[tuple[str, str], str] = {}
        done: set[tuple[str, str]] = set()
        for event in self._stage.events:
            kind, _, stage = event["type"].rpartition(".")
            part = (kind, str(event.get("item_id")))
            if stage == "delta":
                assert part not in done, event["type"]
                pieces[part] = pieces.get(part, "") + event["delta"]
            elif stage == "done" and kind in WHOLE:
                assert part not in done, event["type"]
                done.add(part)
                assert pieces.get(part, "") == event[WHOLE[kind]]
            elif stage == "done":
                done.add(part)

    def _check_heard(self) -> None:
        """Of what was truncated, the chat model reads no word that was not heard."""
        heard_ms: dict[str, int] = {}
        for event in self._stage.of("conversation.item.truncated"):
            item_id, end_ms = event["item_id"], event["audio_end_ms"]
            heard_ms[item_id] = min(end_ms, heard_ms.get(item_id, end_ms))
        conversation = self._stage.harness.dialect._conversation  # type: ignore[attr-defined]
        for item in conversation.items:
            if item.id in heard_ms and item.messages:
                words = str(item.messages[0]["content"]).rstrip(" .")
                between_ms = speaking_ms(" ")  # of two sentences, which nobody says
                assert speaking_ms(words) - between_ms <= heard_ms[item.id]

    def _order(self) -> list[str]:
        """The items as a client puts them together."""
        ids: list[str] = []
        for event in self._stage.events:
            if event["type"] == "conversation.item.added":
                previous = event["previous_item_id"]
                ids.insert(0 if previous is None else ids.index(previous) + 1, event["item"]["id"])
            elif event["type"] == "conversation.item.deleted":
                ids.remove(event["item_id"])
        return ids


def parts_of(messages: Any) -> list[tuple[str, object]]:
    """What messages say and call, one by one: text and calls may share a message."""
    parts: list[tuple[str, object]] = []
    message: Message
    for message in messages:
        if message["content"] and str(message["content"]).strip():
            parts.append((str(message["role"]), str(message["content"]).strip()))
        calls = message.get("tool_calls") or ()
        assert isinstance(calls, list | tuple)
        parts += [("call", call["id"]) for call in calls]
    return parts


async def run_client(seed: int, steps: int) -> None:
    chance = random.Random(seed)
    approval = chance.choice(("always", "never"))
    stage = RealtimeStage(
        model=ScriptedModel(REPLIES, delta_ms=30),
        synthesizer=Reader(),
        tool_servers=Home(wait_ms=chance.choice((0, 400))).open,
        update={**MANUAL, "tools": [LAMP, mcp(require_approval=approval)]},
        recognizer=ScriptedRecognizer(("first words", "", "second"), final_ms=200),
    )
    async with stage:
        client = AnyClient(stage, chance)
        for _ in range(steps):
            await client.act()
        await asyncio.sleep(30)
        client.check()


@pytest.mark.parametrize("seed", range(12))
async def test_any_order_of_events(seed: int) -> None:
    await run_client(seed, 40)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 160))
async def test_many_orders_of_events(seed: int) -> None:
    await run_client(seed, 60)
