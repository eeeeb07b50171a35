"""The configuration of ``chat.update``: defaults, ranges, refusals that name the
offending field.
"""

import json
from collections.abc import Mapping
from dataclasses import replace

import pytest

from voicechat.dialects.base import Connection
from voicechat.dialects.speech_chat.rules import SpeechChat
from voicechat.dialects.speech_chat.settings import Update, read_chat_update
from voicechat.errors import RemoteProtocolError, Status
from voicechat.names import ServiceNames
from voicechat.schema.document import DOCUMENT_SETTINGS
from voicechat.session.agent import Agent
from voicechat.session.commands import Configure
from voicechat.session.types import (
    ChatSettings,
    InputSettings,
    Settings,
    TurnDetection,
    VoiceSettings,
)

CONNECTION = Connection(models=ServiceNames(frozenset({"default", "qwen3"}), {"Qwen2.5": "qwen3"}))
COMPLETION = "chat_completion_with_voice_output_req.chat_completion_req"
SYNTHESIS = "chat_completion_with_voice_output_req.speech_synthesis_req"
RECOGNITION = "create_transcription_task_req"

SEED_EXAMPLE = (
    '{"event_type":"chat.update","message":"{\\"create_transcription_task_req\\":{\\"service_uuid\\":\\"\\"},'
    '\\"chat_completion_with_voice_output_req\\":{\\"chat_completion_req\\":{\\"messages\\":[{\\"role\\":\\"system\\",'
    '\\"content\\":\\"你是人工智能助手。\\"}],\\"model\\":\\"\\",\\"stream\\":true},'
    '\\"speech_synthesis_req\\":{\\"service_id\\":\\"\\"}}}"}'
)


def configuration(
    recognition: object = None, completion: object = None, synthesis: object = None, **top: object
) -> dict[str, object]:
    return {
        "create_transcription_task_req": {} if recognition is None else recognition,
        "chat_completion_with_voice_output_req": {
            "chat_completion_req": {} if completion is None else completion,
            "speech_synthesis_req": {} if synthesis is None else synthesis,
        },
        **top,
    }


def updated(message: object, connection: Connection = CONNECTION) -> Update:
    return read_chat_update(json.dumps(message), connection)


def accepted(message: object, connection: Connection = CONNECTION) -> Settings:
    return updated(message, connection).settings


def refused(message: object) -> RemoteProtocolError:
    with pytest.raises(RemoteProtocolError) as caught:
        updated(message)
    return caught.value


def options(**given: object) -> Mapping[str, object]:
    return accepted(configuration(completion=given)).chat.options


def test_the_documents_own_example_is_accepted() -> None:
    context = ({"role": "system", "content": "你是人工智能助手。"},)
    reactions = SpeechChat(CONNECTION).receive(SEED_EXAMPLE, 0)
    (configure,) = (reaction for reaction in reactions if isinstance(reaction, Configure))
    assert configure.settings == replace(DOCUMENT_SETTINGS, chat=ChatSettings(messages=context))


@pytest.mark.parametrize("empty", ["", None])
def test_empty_fields_stand_for_the_defaults(empty: object) -> None:
    message = configuration(
        {"heartbeat": empty, "speech_recognition_param": {"sample_rate": empty, "format": empty}},
        {"messages": empty, "model": empty, "stream": empty, "temperature": empty, "stop": empty},
        {
            "stream": empty,
            "synthesis_param": {"model": empty, "voice": empty, "format": empty, "volume": empty},
        },
        asr_mode=empty,
        pacing=empty,
        turn_detection=empty,
        downlink=empty,
    )
    assert accepted(message) == accepted(configuration()) == DOCUMENT_SETTINGS


def test_a_json_string_and_an_object_say_the_same() -> None:
    message = configuration({"heartbeat": True}, asr_mode="refresh")
    assert read_chat_update(json.dumps(message), CONNECTION) == read_chat_update(
        message, CONNECTION
    )


@pytest.mark.parametrize(
    ("recognition", "expected"),
    [
        ({"format": "pcm", "sample_rate": 8000}, ("pcm", 8000)),
        (
            {
                "format": "pcm",
                "sample_rate": 8000,
                "speech_recognition_param": {"sample_rate": 48000},
            },
            ("pcm", 48000),
        ),
        ({"format": "pcm", "speech_recognition_param": {"format": "mp3"}}, ("mp3", 16000)),
        (
            {"format": "pcm", "speech_recognition_param": {"format": "", "sample_rate": None}},
            ("pcm", 16000),
        ),
    ],
)
def test_the_audio_may_be_described_directly_and_the_inner_object_wins(
    recognition: object, expected: tuple[str, int]
) -> None:
    settings = accepted(configuration(recognition)).input
    assert (settings.format, settings.sample_rate_hz) == expected


def test_a_wrong_format_is_named_where_it_stands() -> None:
    assert refused(configuration({"format": "doc"})).message.startswith(f"{RECOGNITION}.format: ")
    inner = {"speech_recognition_param": {"format": "doc"}}
    assert refused(configuration(inner)).message.startswith(
        f"{RECOGNITION}.speech_recognition_param.format: "
    )


def test_whether_the_client_answers_tools_is_its_to_say() -> None:
    assert accepted(configuration()).chat.answers_tools is False
    assert accepted(configuration(answers_tools=True)).chat.answers_tools is True


def test_everything_can_be_set() -> None:
    message = configuration(
        {"heartbeat": True, "speech_recognition_param": {"sample_rate": 48000, "format": "pcm"}},
        {
            "model": "qwen3",
            "messages": [{"role": "user", "content": None, "name": "ann"}],
            "temperature": 0.5,
        },
        {
            "stream": True,
            "synthesis_param": {"model": "m", "voice": "v", "format": "WAV_16000HZ_MONO_16BIT"},
        },
        asr_mode="refresh",
        pacing={"lead_ms": 1500},
    )
    context = ({"role": "user", "content": None, "name": "ann"},)
    assert accepted(message) == Settings(
        input=InputSettings(format="pcm", sample_rate_hz=48000, silence_allowed=True),
        chat=ChatSettings(model="qwen3", messages=context, options={"temperature": 0.5}),
        voice=VoiceSettings(model="m", voice="v", format="WAV_16000HZ_MONO_16BIT"),
        half_duplex=True,
        lead_ms=1500,
    )


def tool(name: str, **more: object) -> dict[str, object]:
    return {"type": "function", "function": {"name": name, **more}}


def test_what_the_client_gave_passes_through() -> None:
    given = {
        "temperature": 2,
        "top_p": 0,
        "max_tokens": 1,
        "stop": ["a", "b", "c", "d"],
        "presence_penalty": -2,
        "frequency_penalty": 2,
        "logprobs": True,
        "top_logprobs": 20,
        "response_format": {"type": "json_object"},
        "tools": [
            {
                "type": "function",
                "function": {"name": "f", "parameters": {"type": "object"}, "strict": True},
            }
        ],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "parallel_tool_calls": False,
        "enable_thinking": False,
        "chat_template_kwargs": {"enable_thinking": True, "other": [1]},
        "thinking": {"type": "disabled"},
    }
    assert options(**given) == given
    assert options(**given, seed=7, unknown={}) == given | {"seed": 7, "unknown": {}}, (
        "the model's server may know it"
    )
    assert options(messages=[], model="", stream=True, unknown=None) == {}
    assert options() == {}
    assert options(stop="。") == {"stop": "。"}


def test_as_many_and_as_large_tools_as_are_allowed_are_accepted() -> None:
    many = [tool(f"f{number}") for number in range(64)]
    assert options(tools=many, tool_choice="none") == {"tools": many, "tool_choice": "none"}
    large = [tool("f" * 64, description="x" * 65_000)]
    assert options(tools=large) == {"tools": large}


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({"temperature": 2.1}, ".temperature"),
        ({"temperature": "1"}, ".temperature"),
        ({"temperature": True}, ".temperature"),
        ({"top_p": -0.1}, ".top_p"),
        ({"max_tokens": 0}, ".max_tokens"),
        ({"max_tokens": 1.5}, ".max_tokens"),
        ({"max_tokens": 10**30}, ".max_tokens"),
        ({"stop": ["a"] * 5}, ".stop"),
        ({"stop": [1]}, ".stop"),
        ({"presence_penalty": 2.5}, ".presence_penalty"),
        ({"frequency_penalty": -3}, ".frequency_penalty"),
        ({"logprobs": 1}, ".logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, ".top_logprobs"),
        ({"top_logprobs": 3}, ""),
        ({"tools": [tool(f"f{number}") for number in range(65)]}, ".tools"),
        ({"tools": [tool("f", description="é" * 33_000)]}, ".tools"),
        ({"tools": [tool("f"), tool("g"), tool("f")]}, ".tools"),
        ({"tools": [tool("f"), tool("")]}, ".tools[1].function.name"),
        ({"tools": [tool("f" * 65)]}, ".tools[0].function.name"),
        ({"tools": [tool("f", parameters=[])]}, ".tools[0].function.parameters"),
        ({"tools": [tool("f")], "tool_choice": "always"}, ".tool_choice"),
        ({"tools": [tool("f")], "tool_choice": {"type": "function"}}, ".tool_choice"),
        ({"tools": [], "tool_choice": "auto"}, ""),
        ({"parallel_tool_calls": True}, ""),
        ({"logprobs": False, "top_logprobs": 3}, ""),
        ({"response_format": {"type": "xml"}}, ".response_format.type"),
        ({"response_format": "json_object"}, ".response_format"),
        ({"tools": {}}, ".tools"),
        ({"tools": [{"type": "retrieval", "function": {"name": "f"}}]}, ".tools[0].type"),
        ({"tools": [{"type": "function", "function": {}}]}, ".tools[0].function.name"),
        ({"enable_thinking": "yes"}, ".enable_thinking"),
        ({"chat_template_kwargs": {"enable_thinking": 1}}, ".chat_template_kwargs.enable_thinking"),
        ({"thinking": {"type": "auto"}}, ".thinking.type"),
        ({"stream": False}, ".stream"),
        ({"messages": {}}, ".messages"),
        ({"messages": ["hello"]}, ".messages[0]"),
        ({"messages": [{"content": "hello"}]}, ".messages[0].role"),
        ({"messages": [{"role": "owner", "content": ""}]}, ".messages[0].role"),
        ({"messages": [{"role": "user"}]}, ".messages[0]"),
        ({"messages": [{"role": "user", "content": 7}]}, ".messages[0].content"),
        (
            {"messages": [{"role": "user", "content": [{"text": "no type"}]}]},
            ".messages[0].content",
        ),
    ],
)
def test_a_wrong_parameter_is_refused_by_its_path(given: dict[str, object], path: str) -> None:
    refusal = refused(configuration(completion=given))
    assert refusal.status is Status.INVALID_PARAMETER
    assert refusal.message.startswith(f"{COMPLETION}{path}: ")


def test_the_context_may_hold_tool_calls_and_pictures() -> None:
    context = [
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}}],
        },
        {
            "role": "assistant",
            "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f"}}],
        },
        {"role": "tool", "tool_call_id": "1", "content": ""},
    ]
    assert list(accepted(configuration(completion={"messages": context})).chat.messages) == context


@pytest.mark.parametrize(
    ("message", "path"),
    [
        ({}, "create_transcription_task_req"),
        (configuration(recognition=""), "create_transcription_task_req"),
        (configuration(recognition=[]), "create_transcription_task_req"),
        ({"create_transcription_task_req": {}}, "chat_completion_with_voice_output_req"),
        (
            {
                "create_transcription_task_req": {},
                "chat_completion_with_voice_output_req": {"chat_completion_req": {}},
            },
            "chat_completion_with_voice_output_req.speech_synthesis_req",
        ),
        (
            {
                "create_transcription_task_req": {},
                "chat_completion_with_voice_output_req": {"speech_synthesis_req": {}},
            },
            "chat_completion_with_voice_output_req.chat_completion_req",
        ),
        (configuration({"heartbeat": "true"}), f"{RECOGNITION}.heartbeat"),
        (configuration({"speech_recognition_param": 7}), f"{RECOGNITION}.speech_recognition_param"),
        (configuration(synthesis={"stream": False}), f"{SYNTHESIS}.stream"),
        (
            configuration(synthesis={"synthesis_param": {"voice": 7}}),
            f"{SYNTHESIS}.synthesis_param.voice",
        ),
        (
            configuration(synthesis={"synthesis_param": {"format": "MP3_22050HZ_STEREO_256KBPS"}}),
            f"{SYNTHESIS}.synthesis_param.format",
        ),
        (
            configuration({"speech_recognition_param": {"format": "cassette"}}),
            f"{RECOGNITION}.speech_recognition_param.format",
        ),
        (configuration(asr_mode="offline"), "asr_mode"),
        (configuration(pacing={"lead_ms": 199}), "pacing.lead_ms"),
        (configuration(pacing={"lead_ms": 60_001}), "pacing.lead_ms"),
        (configuration(pacing=1500), "pacing"),
    ],
)
def test_a_wrong_or_missing_section_is_refused_by_its_path(message: object, path: str) -> None:
    refusal = refused(message)
    assert refusal.status is Status.INVALID_PARAMETER
    assert refusal.message.startswith(f"{path}: ")


@pytest.mark.parametrize("sample_rate", [4000, 7999, 192_001, 10**30])
def test_a_sample_rate_out_of_range_is_told_with_the_range(sample_rate: int) -> None:
    message = refused(
        configuration({"speech_recognition_param": {"sample_rate": sample_rate}})
    ).message
    assert message.startswith(f"{RECOGNITION}.speech_recognition_param.sample_rate: ")
    if sample_rate < 10**9:
        assert message.endswith(f": {sample_rate} is not between 8000 and 192000")


def test_volume_speed_and_pitch_are_taken() -> None:
    wished = {"volume": 80, "speechRate": 1.2, "pitchRate": 0.5}
    settings = accepted(configuration(synthesis={"synthesis_param": wished}))
    assert settings.voice == replace(
        DOCUMENT_SETTINGS.voice, volume=80, speech_rate=1.2, pitch_rate=0.5
    )


@pytest.mark.parametrize(
    ("parameter", "low", "high"),
    [("volume", 0, 100), ("speechRate", 0.5, 2), ("pitchRate", 0.5, 2)],
)
def test_volume_speed_and_pitch_have_bounds(parameter: str, low: float, high: float) -> None:
    for allowed in (low, high):
        assert (
            accepted(configuration(synthesis={"synthesis_param": {parameter: allowed}}))
            != DOCUMENT_SETTINGS
        )
    for other in (low - 0.25, high + 0.25, "1", True):
        refusal = refused(configuration(synthesis={"synthesis_param": {parameter: other}}))
        assert refusal.status is Status.INVALID_PARAMETER
        assert refusal.message.startswith(f"{SYNTHESIS}.synthesis_param.{parameter}: ")


def test_hands_free_mode_is_laid_over_its_defaults() -> None:
    wished = {
        "type": "server_vad",
        "silence_duration_ms": 700,
        "min_interruption_words": 2,
        "threshold": None,
    }
    settings = accepted(configuration(turn_detection=wished))
    assert settings.turn_detection == TurnDetection(
        silence_duration_ms=700, min_interruption_words=2
    )
    assert accepted(configuration()).turn_detection is None


@pytest.mark.parametrize(
    ("detection", "path"),
    [
        ({}, "turn_detection.type: "),
        ({"type": "semantic_vad"}, "turn_detection.type: "),
        ({"type": "server_vad", "threshold": 2}, "turn_detection.threshold: "),
        ({"type": "server_vad", "min_interruption_ms": 1}, "turn_detection.min_interruption_ms: "),
        ("server_vad", "turn_detection: "),
    ],
)
def test_hands_free_mode_has_bounds(detection: object, path: str) -> None:
    refusal = refused(configuration(turn_detection=detection))
    assert refusal.status is Status.INVALID_PARAMETER
    assert refusal.message.startswith(path)


def test_a_server_without_voice_detection_refuses_hands_free_mode() -> None:
    message = json.dumps(configuration(turn_detection={"type": "server_vad"}))
    with pytest.raises(RemoteProtocolError, match=r"^turn_detection: "):
        read_chat_update(message, replace(CONNECTION, hands_free=False))


def test_audio_may_be_asked_for_as_binary_messages() -> None:
    assert updated(configuration(downlink="binary")).binary_audio
    assert not updated(configuration(downlink="json")).binary_audio
    assert refused(configuration(downlink="opus")).message.startswith("downlink: ")


@pytest.mark.parametrize(
    "name", ["mp3", "opus", "opus_raw", "speex", "aac", "amr", "flac", "webm", "mulaw", "g722"]
)
def test_every_input_format_is_taken(name: str) -> None:
    assert accepted(
        configuration({"speech_recognition_param": {"format": name}})
    ).input == InputSettings(format=name)


def test_an_unknown_input_format_is_refused_by_its_path() -> None:
    refusal = refused(configuration({"speech_recognition_param": {"format": "cassette"}}))
    assert refusal.status is Status.INVALID_PARAMETER
    assert refusal.message.startswith(f"{RECOGNITION}.speech_recognition_param.format: ")


def test_an_unknown_model_is_not_found() -> None:
    refusal = refused(configuration(completion={"model": "gpt-9"}))
    expected = f'{COMPLETION}.model: "gpt-9" is not one of Qwen2.5, default, qwen3'
    assert (refusal.status, refusal.message) == (Status.NOT_FOUND, expected)


def test_a_model_may_be_called_by_an_alias() -> None:
    assert accepted(configuration(completion={"model": "Qwen2.5"})).chat.model == "Qwen2.5"


def test_where_there_is_no_choice_any_model_is_the_default_and_the_client_is_told() -> None:
    update = read_chat_update(configuration(completion={"model": "gpt-9"}), Connection())
    assert (
        update.note == f'{COMPLETION}.model: "gpt-9" is not configured here; default serves instead'
    )


def test_what_the_connection_asked_for_is_its_own_model_whatever_that_is_called() -> None:
    hotel = replace(CONNECTION, model="hotel", agent=Agent(name="hotel", llm="qwen3"))
    for model in ("hotel", "default", ""):
        update = read_chat_update(configuration(completion={"model": model}), hotel)
        assert isinstance(update, Update)
        assert (update.settings.chat.model, update.note) == ("", "")
    assert accepted(configuration(completion={"model": "qwen3"}), hotel).chat.model == "qwen3"
    assert accepted(configuration(completion={"model": "default"})).chat.model == ""
    other = replace(CONNECTION, model="qwen3")
    assert accepted(configuration(completion={"model": "default"}), other).chat.model == "default"
    vendors = Connection(model="Qwen2.5-32B-Instruct", note="told when it connected")
    update = read_chat_update(configuration(completion={"model": "Qwen2.5-32B-Instruct"}), vendors)
    assert isinstance(update, Update)
    assert update.note == "", "told once"


def test_a_mapped_voice_is_reported_when_the_client_asked_for_it() -> None:
    greeting = Connection(pick_voice=lambda name: "en-us")
    asked = read_chat_update(
        configuration(synthesis={"synthesis_param": {"voice": "longwan"}}), greeting
    )
    silent = read_chat_update(configuration(), greeting)
    known = read_chat_update(
        configuration(synthesis={"synthesis_param": {"voice": "en-us"}}), greeting
    )
    for update in (asked, silent, known):
        assert isinstance(update.settings, Settings)
        assert update.settings.voice.voice == "en-us"
    path = f"{SYNTHESIS}.synthesis_param.voice"
    assert asked.note == f'{path}: "longwan" is not known here; "en-us" speaks instead'
    assert silent.note == known.note == ""


def test_a_refusal_never_grows_with_what_was_sent() -> None:
    for message in (
        configuration(asr_mode="x" * 100_000),
        configuration({"speech_recognition_param": {"format": "x" * 100_000}}),
        configuration(synthesis={"synthesis_param": {"format": "x" * 100_000}}),
        configuration(completion={"messages": [{"role": "x" * 100_000}]}),
    ):
        assert len(refused(message).message) < 500
