"""Whole conversations over the dialect, in virtual time."""

import base64
from typing import Any

from tests.openai_realtime.client import MANUAL, RealtimeStage, judged
from voicechat.dialects.openai_realtime.endpoint import OpenAIRealtimeEndpoint
from voicechat.errors import Status
from voicechat.session.agent import Agent
from voicechat.session.types import ToolCall
from voicechat.testing.scripted import Failure, ScriptedModel, ScriptedRecognizer

LAMP = {
    "type": "function",
    "name": "lamp",
    "description": "A lamp.",
    "parameters": {"type": "object"},
}
RESPONSE = [
    "response.created",
    "rate_limits.updated",
    "response.output_item.added",
    "conversation.item.added",
    "response.content_part.added",
    "response.output_audio_transcript.delta",
    "response.output_audio.delta",
    "response.output_audio.done",
    "response.output_audio_transcript.done",
    "response.content_part.done",
    "conversation.item.done",
    "response.output_item.done",
    "response.done",
]


async def test_a_manual_turn_is_told_in_the_documented_order() -> None:
    async with RealtimeStage(recognizer=ScriptedRecognizer(("what time is it",))) as stage:
        begin = len(stage.events)
        stage.speak(1200)
        stage.say("input_audio_buffer.commit")
        stage.say("response.create")
        done = await stage.until("response.done")
        kinds = stage.kinds(begin)
        assert kinds[:3] == [
            "input_audio_buffer.committed",
            "conversation.item.added",
            "conversation.item.done",
        ]
        told = "conversation.item.input_audio_transcription"
        assert [
            kind for kind in kinds[3:] if kind not in (f"{told}.delta", f"{told}.completed")
        ] == (RESPONSE)
        committed = stage.of("input_audio_buffer.committed")[0]
        completed = stage.of(f"{told}.completed")[0]
        assert completed["item_id"] == committed["item_id"]
        assert completed["transcript"] == "what time is it"
        assert completed["usage"] == {"type": "duration", "seconds": 1.2}
        deltas = "".join(event["delta"] for event in stage.of(f"{told}.delta"))
        assert deltas == "what time is it"
        [item] = done["response"]["output"]
        assert item["content"] == [
            {"type": "output_audio", "transcript": "Hello there. How are you?"}
        ]
        audio = b"".join(
            base64.b64decode(event["delta"]) for event in stage.of("response.output_audio.delta")
        )
        assert len(audio) >= 48 * 50 * len("Hello there.How are you?")
        assert stage.read() == [("user", "what time is it")]


async def test_text_only() -> None:
    async with RealtimeStage() as stage:
        await stage.say_text("hello")
        begin = len(stage.events)
        response = await stage.respond(output_modalities=["text"], metadata={"topic": "x"})
        assert stage.kinds(begin) == [
            "response.created",
            "rate_limits.updated",
            "response.output_item.added",
            "conversation.item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "conversation.item.done",
            "response.output_item.done",
            "response.done",
        ]
        assert response["metadata"] == {"topic": "x"}
        assert response["status"] == "completed"
        await stage.say_text("again")
        await stage.respond()
        assert stage.read()[1:] == [
            ("assistant", "Hello there. How are you?"),
            ("user", "again"),
        ]


async def test_the_client_answers_a_call_with_an_item() -> None:
    call = ToolCall(0, "call_a", "lamp", '{"on": true}')
    model = ScriptedModel((("Let me see. ", call), ("There is light.",)))
    async with RealtimeStage(
        model=model, update={**MANUAL, "tools": [LAMP], "tool_choice": "auto"}
    ) as stage:
        await stage.say_text("light please")
        response = await stage.respond()
        said, called = response["output"]
        assert called["call_id"] == "call_a"
        assert (said["status"], called["status"]) == ("completed", "completed")
        [done] = stage.of("response.function_call_arguments.done")
        assert (done["name"], done["arguments"]) == ("lamp", '{"on": true}')
        assert done["item_id"] == called["id"]
        assert model.requests[0].options["tools"][0]["function"]["name"] == "lamp"  # type: ignore[index]
        output = {"type": "function_call_output", "call_id": "call_a", "output": "it is on"}
        stage.say("conversation.item.create", item=output)
        await stage.respond()
        assert stage.read()[1:] == [("assistant", "Let me see."), ("tool", "it is on")]


async def test_an_output_that_comes_before_its_response_is_done_is_read_behind_its_call() -> None:
    call = ToolCall(0, "call_a", "lamp", "{}")
    model = ScriptedModel((("Let me see, it takes a while. ", call), ("Light.",)), delta_ms=10)
    async with RealtimeStage(model=model, update={**MANUAL, "tools": [LAMP]}) as stage:
        await stage.say_text("light please")
        stage.say("response.create")
        await stage.until("response.function_call_arguments.done")
        output = {"type": "function_call_output", "call_id": "call_a", "output": "it is on"}
        stage.say("conversation.item.create", item=output)
        await stage.until("response.done")
        await stage.respond()
        assert [role for role, _ in stage.read()] == ["user", "assistant", "tool"]


async def test_cancel_ends_the_response_and_nothing_of_it_follows() -> None:
    async with RealtimeStage(
        model=ScriptedModel((("One. ", "Two. ", "Three. "),), delta_ms=400)
    ) as stage:
        await stage.say_text("count")
        stage.say("response.create", event_id="e1")
        await stage.until("response.output_audio.delta", 3)
        stage.say("response.cancel")
        done = await stage.until("response.done")
        end = len(stage.events)
        assert done["response"]["status"] == "cancelled"
        assert done["response"]["status_details"]["reason"] == "client_cancelled"
        assert done["response"]["output"][0]["status"] == "incomplete"
        stage.say("response.cancel", event_id="e2")
        error = await stage.error()
        assert (error["code"], error["event_id"]) == ("response_cancel_not_active", "e2")
        assert stage.kinds(end) == ["error"]


async def test_a_cut_reply_is_remembered_as_far_as_the_client_heard_it() -> None:
    async with RealtimeStage(
        model=ScriptedModel((("One two three four five.",), ("Yes.",)))
    ) as stage:
        await stage.say_text("count")
        response = await stage.respond()
        item_id = response["output"][0]["id"]
        stage.say("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=600)
        truncated = await stage.until("conversation.item.truncated")
        assert truncated["audio_end_ms"] == 600
        stage.say("conversation.item.retrieve", item_id=item_id)
        retrieved = await stage.until("conversation.item.retrieved")
        assert retrieved["item"]["content"][0]["transcript"] == "One two three"
        stage.say(
            "conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=99_999
        )
        assert (await stage.error())["param"] == "audio_end_ms"
        await stage.respond()
        assert stage.read() == [("user", "count"), ("assistant", "One two three")]


async def test_a_reply_is_truncated_while_it_is_made() -> None:
    model = ScriptedModel((("One two three. ", "Four five six. "), ("Yes.",)), delta_ms=500)
    async with RealtimeStage(model=model) as stage:
        await stage.say_text("count")
        stage.say("response.create")
        delta = await stage.until("response.output_audio.delta", 5)
        place = {"item_id": delta["item_id"], "content_index": 0, "audio_end_ms": 200}
        stage.say("conversation.item.truncate", **place)
        stage.say("response.cancel")
        await stage.until("response.done")
        await stage.respond()
        assert stage.read() == [("user", "count"), ("assistant", "One")]


async def test_two_responses_at_once_only_out_of_band() -> None:
    model = ScriptedModel((("Slowly. ", "Slowly."), ("other",)), delta_ms=500)
    async with RealtimeStage(model=model) as stage:
        item_id = await stage.say_text("hello")
        stage.say("response.create")
        await stage.until("response.created")
        stage.say("response.create", event_id="second")
        error = await stage.error()
        assert error["code"] == "conversation_already_has_active_response"
        assert error["event_id"] == "second"
        apart = await stage.respond(
            conversation="none",
            output_modalities=["text"],
            instructions="Classify.",
            input=[{"type": "item_reference", "id": item_id}],
        )
        assert apart["conversation_id"] is None
        assert stage.read(1) == [("system", "Classify."), ("user", "hello")]
        await stage.until("response.done", 2)
        added = [event["item"]["id"] for event in stage.of("conversation.item.added")]
        assert apart["output"][0]["id"] not in added


async def test_items_stand_where_the_client_puts_them() -> None:
    async with RealtimeStage() as stage:
        second = await stage.say_text("two")
        await stage.say_text("one", previous_item_id="root")
        await stage.say_text("four")
        await stage.say_text("three", previous_item_id=second)
        await stage.say_text("be brief", role="system")
        await stage.respond(output_modalities=["text"])
        words = [content for _, content in stage.read()]
        assert words == ["one", "two", "three", "four", "be brief"]
        stage.say("conversation.item.delete", item_id=second)
        await stage.until("conversation.item.deleted")
        stage.say("conversation.item.delete", item_id=second, event_id="gone")
        assert (await stage.error())["event_id"] == "gone"


async def test_items_that_come_before_the_words_of_a_turn_stand_behind_them() -> None:
    async with RealtimeStage(recognizer=ScriptedRecognizer(("first",), final_ms=500)) as stage:
        stage.speak()
        stage.say("input_audio_buffer.commit")
        await stage.say_text("second")
        await stage.respond(output_modalities=["text"])
        assert stage.read() == [("user", "first"), ("user", "second")]


async def test_a_failed_response_says_why() -> None:
    async with RealtimeStage(model=ScriptedModel(failure=Failure(calls=9))) as stage:
        await stage.say_text("hello")
        response = await stage.respond()
        assert response["status"] == "failed"
        assert response["status_details"]["error"]["code"] == "model_failed"
        assert (await stage.error())["type"] == "server_error"


async def test_what_is_wrong_is_answered_and_nothing_else_happens() -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"type": "nonsense"}, "type"),
        ({"type": "input_audio_buffer.append"}, "audio"),
        ({"type": "input_audio_buffer.append", "audio": "***"}, "audio"),
        ({"type": "conversation.item.create"}, "item"),
        ({"type": "conversation.item.create", "item": {"type": "message"}}, "item.role"),
        ({"type": "conversation.item.retrieve", "item_id": "x"}, "item_id"),
        ({"type": "conversation.item.truncate", "item_id": "x"}, "item_id"),
        ({"type": "session.update", "session": 3}, "session"),
        (
            {"type": "session.update", "session": {"output_modalities": ["video"]}},
            "session.output_modalities",
        ),
        (
            {"type": "response.create", "response": {"max_output_tokens": 0}},
            "response.max_output_tokens",
        ),
    ]
    async with RealtimeStage() as stage:
        for number, (event, param) in enumerate(wrong):
            stage.say(event_id=f"e{number}", kind=event.pop("type"), **event)
            error = await stage.error()
            assert error["event_id"] == f"e{number}"
            assert error["param"] == param, (event, error)
        stage.harness.send_frame("{")
        assert (await stage.error())["code"] == "invalid_json"
        stage.say("input_audio_buffer.commit")
        assert (await stage.error())["code"] == "input_audio_buffer_commit_empty"
        assert stage.kinds()[3:] == ["error"] * (len(wrong) + 2)


async def test_the_session_echoes_what_is_in_force() -> None:
    async with RealtimeStage(update=None, agent=Agent(instructions="A secret.")) as stage:
        created = await stage.until("session.created")
        session = created["session"]
        assert session["instructions"] == "", "the operator's own are not told"
        assert session["audio"]["input"]["turn_detection"]["type"] == "server_vad"
        change = {
            "instructions": "Be brief.",
            "audio": {
                "input": {"turn_detection": {"type": "semantic_vad", "eagerness": "low"}},
                "output": {"voice": "marin", "speed": 0.25},
            },
        }
        stage.say("session.update", session=change)
        session = (await stage.until("session.updated"))["session"]
        assert session["audio"]["output"] == {
            "format": {"type": "audio/pcm", "rate": 24000},
            "voice": "marin",
            "speed": 0.5,
        }
        detection = session["audio"]["input"]["turn_detection"]
        assert detection["eagerness"] == "low"
        stage.say("session.update", session={"audio": {"input": {"turn_detection": None}}})
        session = (await stage.until("session.updated", 2))["session"]
        assert session["instructions"] == "Be brief."
        assert session["audio"]["input"]["turn_detection"] is None
        assert session["audio"]["output"]["voice"] == "marin"
        await stage.say_text("hello")
        await stage.respond(output_modalities=["text"])
        assert stage.read()[0] == ("system", "Be brief.")


async def test_a_transcription_session_answers_nobody() -> None:
    stage = RealtimeStage(
        query={"intent": "transcription"},
        update={"type": "transcription", "audio": {"input": {"turn_detection": None}}},
        recognizer=ScriptedRecognizer(("note this down",)),
    )
    async with stage:
        stage.speak()
        stage.say("input_audio_buffer.commit")
        done = await stage.until("conversation.item.input_audio_transcription.completed")
        assert done["transcript"] == "note this down"
        stage.say("response.create")
        await stage.error()
        assert not stage.model.requests
        assert stage.of("session.updated")[0]["session"]["type"] == "transcription"


async def test_a_greeting_is_a_response_like_any_other() -> None:
    async with RealtimeStage(agent=Agent(greeting="Good day!")) as stage:
        done = await stage.until("response.done")
        assert done["response"]["output"][0]["content"][0]["transcript"] == "Good day!"


async def test_a_prompt_is_an_agent() -> None:
    guide = Agent(instructions="You show {guest} around.", variables={"guest": "them"})
    async with RealtimeStage(others={"guide": guide}) as stage:
        prompt = {"id": "guide", "variables": {"guest": "Anna"}}
        stage.say("session.update", session={"prompt": prompt})
        updated = await stage.until("session.updated", 2)
        assert updated["session"]["prompt"]["id"] == "guide"
        await stage.say_text("hello")
        await stage.respond(output_modalities=["text"])
        assert stage.read()[0] == ("system", "You show Anna around.")
        stage.say("session.update", session={"prompt": {"id": "nobody"}})
        assert (await stage.error())["param"] == "session.prompt.id"


async def test_pictures_go_to_the_chat_model() -> None:
    async with RealtimeStage() as stage:
        picture = "data:image/png;base64,iVBORw0KGgo="
        parts = [
            {"type": "input_text", "text": "What is this?"},
            {"type": "input_image", "image_url": picture, "detail": "low"},
        ]
        item = {"type": "message", "role": "user", "content": parts}
        stage.say("conversation.item.create", item=item)
        await stage.respond(output_modalities=["text"])
        assert stage.read() == [
            (
                "user",
                [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image_url", "image_url": {"url": picture, "detail": "low"}},
                ],
            )
        ]
        parts[1]["image_url"] = "file:///etc/passwd"
        stage.say("conversation.item.create", item=item)
        assert (await stage.error())["param"] == "item.content[1].image_url"


async def test_g711_both_ways() -> None:
    for name in ("audio/pcmu", "audio/pcma"):
        recognizer = ScriptedRecognizer(("hello",))
        async with RealtimeStage(recognizer=recognizer) as stage:
            formats = {"input": {"format": {"type": name}}, "output": {"format": {"type": name}}}
            stage.say("session.update", session={"audio": formats})
            updated = await stage.until("session.updated", 2)
            assert updated["session"]["audio"]["output"]["format"] == {"type": name}
            audio = base64.b64encode(b"\x55" * 8000).decode()
            stage.say("input_audio_buffer.append", audio=audio)
            stage.say("input_audio_buffer.commit")
            await stage.respond()
            assert recognizer.heard_ms == [1000]
            told = [base64.b64decode(e["delta"]) for e in stage.of("response.output_audio.delta")]
            length_ms = sum(map(len, told)) / 8
            assert 1200 <= length_ms <= 1300, "24 characters of 50 ms"


async def test_audio_in_an_item_is_recognised() -> None:
    for update in (MANUAL, {"audio": {"input": {"transcription": {"model": "whisper-1"}}}}):
        recognizer = ScriptedRecognizer(("what time is it",))
        async with RealtimeStage(recognizer=recognizer, update=update) as stage:
            pcm = b"\0\1" * (24_000 * 2)
            part = {"type": "input_audio", "audio": base64.b64encode(pcm).decode()}
            item = {"id": "mine", "type": "message", "role": "user", "content": [part]}
            begin = len(stage.events)
            stage.say("conversation.item.create", item=item)
            await stage.respond(output_modalities=["text"])
            assert stage.kinds(begin)[:2] == ["conversation.item.added", "conversation.item.done"]
            told = "conversation.item.input_audio_transcription.completed"
            [completed] = stage.of(told)
            assert completed["item_id"] == "mine"
            assert completed["transcript"] == "what time is it"
            assert completed["usage"]["seconds"] == 2.0
            assert stage.read() == [("user", "what time is it")]
            assert recognizer.heard_ms[0] >= 1900
            item = {**item, "id": "other", "content": [part, {"type": "input_text", "text": "x"}]}
            stage.say("conversation.item.create", item=item)
            assert (await stage.error())["param"] == "item.content"
            item = {**item, "content": [part]}
            stage.say("conversation.item.create", item=item, previous_item_id="root")
            assert (await stage.error())["param"] == "previous_item_id"


def test_a_refusal_is_an_error_event() -> None:
    kinds = {
        Status.NOT_AUTHORISED: ("invalid_request_error", "invalid_api_key"),
        Status.QUOTA: ("invalid_request_error", "rate_limit_exceeded"),
        Status.AT_CAPACITY: ("server_error", "server_overloaded"),
    }
    for status, expected in kinds.items():
        refused = OpenAIRealtimeEndpoint().refuse(status, "why", restarting=False)
        [error] = [judged(frame)["error"] for frame in refused.frames]
        assert (error["type"], error["code"]) == expected
