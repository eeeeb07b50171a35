"""Hands-free turns over the dialect, in virtual time."""

from typing import Any

from tests.openai_realtime.client import RealtimeStage
from voicechat.testing.scripted import ScriptedModel, ScriptedRecognizer

TOLD = "conversation.item.input_audio_transcription"


def listening(**detection: Any) -> dict[str, Any]:
    detection = {"type": "server_vad", "silence_duration_ms": 300, **detection}
    return {
        "audio": {"input": {"turn_detection": detection, "transcription": {"model": "whisper-1"}}}
    }


async def test_a_turn_is_found_and_answered() -> None:
    stage = RealtimeStage(update=listening(), recognizer=ScriptedRecognizer(("what time is it",)))
    async with stage:
        begin = len(stage.events)
        await stage.talk(2000, silence=True)
        await stage.talk(1200)
        await stage.talk(1500, silence=True)
        await stage.until("response.done")
        kinds = [kind for kind in stage.kinds(begin) if not kind.startswith(TOLD)]
        assert kinds[:6] == [
            "input_audio_buffer.speech_started",
            "input_audio_buffer.speech_stopped",
            "input_audio_buffer.committed",
            "conversation.item.added",
            "conversation.item.done",
            "response.created",
        ]
        started, stopped = (
            stage.of("input_audio_buffer.speech_started")[0],
            stage.of("input_audio_buffer.speech_stopped")[0],
        )
        [committed] = stage.of("input_audio_buffer.committed")
        assert started["item_id"] == stopped["item_id"] == committed["item_id"]
        assert stopped["audio_end_ms"] > started["audio_start_ms"]
        [completed] = stage.of(f"{TOLD}.completed")
        assert completed["transcript"] == "what time is it"
        assert 1.2 <= completed["usage"]["seconds"] <= 2.2, "the silence before is not counted"
        told = "".join(event["delta"] for event in stage.of(f"{TOLD}.delta"))
        assert told == completed["transcript"]


async def test_speech_interrupts_and_nothing_old_follows() -> None:
    model = ScriptedModel((("This is a long story that goes on and on and on.",), ("Yes.",)))
    async with RealtimeStage(update=listening(), model=model) as stage:
        await stage.talk(900)
        await stage.talk(1500, silence=True)
        await stage.until("response.output_audio.delta")
        await stage.talk(600)
        done = await stage.until("response.done")
        end = stage.events.index(done)
        if done["response"]["status"] == "cancelled":
            assert done["response"]["status_details"]["reason"] == "turn_detected"
        old = done["response"]["id"]
        await stage.talk(1500, silence=True)
        await stage.until("response.done", 2)
        assert not [
            event
            for event in stage.events[end + 1 :]
            if event.get("response_id") == old and event["type"].endswith(".delta")
        ]
        said = [str(content) for role, content in stage.read() if role == "assistant"]
        assert len(said) == 1
        assert "This is a long story that goes on and on and on.".startswith(said[0])
        assert said[0] != "This is a long story that goes on and on and on."


async def test_without_create_response_the_client_asks_for_it() -> None:
    async with RealtimeStage(update=listening(create_response=False)) as stage:
        await stage.talk(900)
        await stage.talk(1500, silence=True)
        await stage.until(f"{TOLD}.completed")
        assert not stage.of("response.created")
        await stage.respond()


async def test_silence_after_a_response_makes_the_model_go_on() -> None:
    async with RealtimeStage(update=listening(idle_timeout_ms=5000)) as stage:
        await stage.talk(900)
        await stage.talk(1500, silence=True)
        await stage.until("response.done")
        await stage.talk(9000, silence=True)
        triggered = await stage.until("input_audio_buffer.timeout_triggered")
        await stage.until("response.done", 2)
        assert triggered["audio_end_ms"] - triggered["audio_start_ms"] == 5000
        committed = stage.of("input_audio_buffer.committed")[1]
        assert committed["item_id"] == triggered["item_id"]


async def test_a_sound_without_words_is_committed_and_not_answered() -> None:
    async with RealtimeStage(update=listening(), recognizer=ScriptedRecognizer(("",))) as stage:
        await stage.talk(600)
        await stage.talk(2000, silence=True)
        completed = await stage.until(f"{TOLD}.completed")
        assert completed["transcript"] == ""
        assert not stage.of("response.created")
