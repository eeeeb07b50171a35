"""A device's conversation: how it listens, what it is told, what it is sent."""

import asyncio
import json
import struct

import pytest

from tests.devices.stage import HELLO, DeviceHarness, open_dialect
from voicechat.dialects.base import Connection, Reaction, Tell
from voicechat.dialects.xiaozhi.codec import silence
from voicechat.dialects.xiaozhi.dialect import (
    FILLED_MS,
    GAP_MS,
    HELD_SILENCE_MS,
    HELLO_MS,
    MOST_ERRORS,
    MOST_FILLED_MS,
    DeviceOptions,
    XiaozhiDialect,
)
from voicechat.dialects.xiaozhi.emotions import EmotionFinder, EmotionSigns
from voicechat.dialects.xiaozhi.endpoint import XiaozhiEndpoint
from voicechat.session import commands as cmd
from voicechat.session import notices as nt
from voicechat.session.agent import Agent
from voicechat.session.events import AudioReceived
from voicechat.session.types import ToolCall, TurnDetection
from voicechat.testing.scripted import Failure, ScriptedModel, ScriptedSynthesizer
from voicechat.text.pieces import SpeechPieces

PACKET = b"\x58packet"
SPEECH_OF_60_MS = frozenset({3, 7, 11, 13, 15, 23, 27, 31})
"""Configurations of packets of three frames of 20 ms, or one of 60 (RFC 6716, 3.1)."""


def said(dialect: XiaozhiDialect, **message: object) -> list[Reaction]:
    return list(dialect.receive(json.dumps(message), 0))


def listening(mode: str) -> XiaozhiDialect:
    dialect = open_dialect(hands_free=True)
    said(dialect, **HELLO)
    said(dialect, type="listen", state="start", mode=mode)
    return dialect


def heard(dialect: XiaozhiDialect, packet: bytes = PACKET, now_ms: int = 0) -> list[Reaction]:
    return list(dialect.receive(packet, now_ms))


def configured(reactions: list[Reaction]) -> cmd.Configure:
    (configure,) = (each for each in reactions if isinstance(each, cmd.Configure))
    return configure


def told(reactions: list[Reaction]) -> list[dict[str, object]]:
    return [
        json.loads(each.frame)
        for each in reactions
        if isinstance(each, Tell) and isinstance(each.frame, str)
    ]


# --- a whole conversation -------------------------------------------------------------


async def test_a_turn_is_told_in_the_order_that_the_firmware_needs() -> None:
    model = ScriptedModel(replies=[["😊 Hello there. ", "How are you?"]])
    async with DeviceHarness(model=model) as device:
        device.hello()
        device.listen("detect", text="good morning")
        await device.until(lambda: device.said("tts", state="stop"))
    kinds = [
        "audio"
        if isinstance(frame, bytes)
        else json.loads(frame).get("state", "") or json.loads(frame)["type"]
        for frame in device.frames
    ]
    order = list(dict.fromkeys(kinds))
    assert order == ["hello", "stt", "start", "llm", "sentence_start", "audio", "stop"]
    assert device.said("stt", text="good morning")
    assert device.said("llm", text="🙂", emotion="happy")
    texts = [each["text"] for each in device.said("tts", state="sentence_start")]
    assert texts == ["Hello there.", "How are you?"] == device.synthesizer.texts


async def test_packets_are_of_the_length_and_rate_that_was_agreed() -> None:
    async with DeviceHarness(synthesizer=ScriptedSynthesizer(rate_hz=22_050)) as device:
        device.hello(audio_params={"frame_duration": 20})
        device.listen("detect", text="hi")
        await device.until(lambda: device.said("tts", state="stop"))
    made_ms = sum(50 * len(text) for text in device.synthesizer.texts)
    assert made_ms <= 20 * len(device.packets) <= made_ms + 4 * 60


async def test_packets_leave_in_real_time_and_stop_is_told_when_they_have_been_played() -> None:
    model = ScriptedModel(replies=[["word " * 30]])
    async with DeviceHarness(model=model) as device:
        device.hello()
        device.listen("detect", text="hi")
        await device.until(lambda: device.said("tts", state="stop"))
    sent_s = [sent.at_s for sent in device.socket.sent if isinstance(sent.frame, bytes)]
    ahead = [60 * number - (at_s - sent_s[0]) * 1000 for number, at_s in enumerate(sent_s)]
    assert max(ahead) <= 480
    assert ahead[-1] >= 300
    stopped_s = device.socket.sent[-1].at_s
    assert 300 <= (stopped_s - sent_s[0]) * 1000 - 60 * len(sent_s) <= 420


async def test_an_abort_is_answered_at_once_and_nothing_follows() -> None:
    model = ScriptedModel(replies=[["word " * 30]])
    async with DeviceHarness(model=model, poll_s=0.02) as device:
        device.hello()
        device.listen("detect", text="hi")
        await device.until(lambda: len(device.packets) > 20)
        device.say(type="abort", reason="wake_word_detected")
        await device.until(lambda: device.said("tts", state="stop"))
        count = len(device.frames)
        await device.until(lambda: device.conversation.now_ms > 20_000)
    assert '"stop"' in str(device.frames[count - 1])
    assert len(device.frames) == count


async def test_a_failure_is_shown_and_speech_ends() -> None:
    model = ScriptedModel(failure=Failure(calls=9))
    async with DeviceHarness(model=model) as device:
        device.hello()
        device.listen("detect", text="hi")
        await device.until(lambda: device.said("tts", state="stop"))
    (alert,) = device.said("alert")
    assert (alert["status"], alert["emotion"]) == ("出错了", "sad")
    assert not device.packets


@pytest.mark.parametrize("version", [1, 2, 3])
async def test_audio_is_sent_in_the_version_of_the_device(version: int) -> None:
    async with DeviceHarness(
        dialect=open_dialect(headers={"protocol-version": str(version)})
    ) as device:
        device.hello()
        device.listen("detect", text="hi")
        await device.until(lambda: device.said("tts", state="stop"))
    assert device.said("hello", version=version)
    frames = device.packets
    match version:
        case 2:
            stamps = [struct.unpack(">HHIII", frame[:16])[3] for frame in frames]
            assert stamps == [60 * (number + 1) for number in range(len(frames))]
        case 3:
            assert all(frame[:2] == b"\0\0" for frame in frames)
            assert all(int.from_bytes(frame[2:4], "big") == len(frame) - 4 for frame in frames)
        case _:
            assert {frame[0] >> 3 for frame in frames} <= SPEECH_OF_60_MS


# --- how it listens -------------------------------------------------------------------


def test_hello_is_answered_and_sets_the_formats() -> None:
    dialect = open_dialect()
    reactions = said(dialect, **HELLO)
    settings = configured(reactions).settings
    assert (settings.input.format, settings.voice.format) == (
        "opus_raw",
        "OPUS_24000HZ_24000BPS_60MS",
    )
    assert (settings.voice.piece_ms, settings.lead_ms) == (60, 480)
    assert [each["type"] for each in told(reactions)] == ["hello"]
    assert [each["type"] for each in told(said(dialect, **HELLO))] == ["hello"]


def test_the_mode_says_who_ends_a_turn_and_who_may_interrupt() -> None:
    dialect = open_dialect(hands_free=True)
    said(dialect, **HELLO)
    realtime = configured(said(dialect, type="listen", state="start", mode="realtime")).settings
    assert realtime.turn_detection == TurnDetection()
    assert not realtime.half_duplex
    said(dialect, type="listen", state="stop")
    auto = configured(said(dialect, type="listen", state="start", mode="auto")).settings
    assert auto.turn_detection == TurnDetection(interrupt_response=False)
    assert auto.half_duplex
    said(dialect, type="listen", state="stop")
    manual = configured(said(dialect, type="listen", state="start", mode="manual")).settings
    assert manual.turn_detection is None
    assert manual.input.silence_allowed


@pytest.mark.parametrize("quiet", [b"\x58", b"\x58" + bytes(16)])
def test_a_held_button_that_is_never_let_go_ends_its_turn_when_speech_has_stopped(
    quiet: bytes,
) -> None:
    dialect, speech = listening("manual"), b"\x58" + bytes(40)
    silent_packets = HELD_SILENCE_MS // 60
    for packet in (*[quiet] * 2 * silent_packets, speech, *[quiet] * 20, speech):
        assert cmd.CommitTurn() not in heard(dialect, packet)
    ends = [cmd.CommitTurn() in heard(dialect, quiet) for _ in range(silent_packets)]
    assert ends == [False] * (silent_packets - 1) + [True]
    assert heard(dialect, speech) == []
    assert cmd.CommitTurn() not in said(dialect, type="listen", state="stop")
    said(dialect, type="listen", state="start", mode="manual")
    assert heard(dialect, speech)


def test_the_agent_says_how_much_silence_ends_a_turn() -> None:
    detection = TurnDetection(silence_duration_ms=900)
    dialect = open_dialect(Agent(turn_detection=detection), hands_free=True)
    said(dialect, **HELLO)
    settings = configured(said(dialect, type="listen", state="start", mode="realtime")).settings
    assert settings.turn_detection == detection


def test_audio_counts_between_start_and_stop_only() -> None:
    dialect = open_dialect()
    assert heard(dialect) == []
    said(dialect, **HELLO)
    assert heard(dialect) == []
    said(dialect, type="listen", state="start", mode="manual")
    assert heard(dialect) == [AudioReceived(PACKET)]
    assert heard(dialect, b"\x58") == [AudioReceived(silence(60))]
    assert cmd.CommitTurn() in said(dialect, type="listen", state="stop")
    assert heard(dialect) == []
    assert cmd.CommitTurn() not in said(dialect, type="listen", state="stop")


def test_starting_twice_keeps_what_was_heard() -> None:
    dialect = listening("manual")
    again = said(dialect, type="listen", state="start", mode="manual")
    assert again == [cmd.Alive()]


def test_a_button_pressed_anew_stops_what_was_being_answered() -> None:
    dialect = listening("manual")
    said(dialect, type="listen", state="stop")
    list(dialect.notify(nt.ReplyBegun(1, 0), 100))
    reactions = said(dialect, type="listen", state="start", mode="manual")
    assert cmd.Cancel() in reactions
    assert told(reactions) == [{"type": "tts", "session_id": "s1", "state": "stop"}]


@pytest.mark.parametrize(("mode", "hears"), [("auto", False), ("realtime", True)])
def test_the_microphone_counts_during_speech_in_realtime_only(mode: str, hears: bool) -> None:
    dialect = listening(mode)
    list(dialect.notify(nt.ReplyBegun(1, 0), 0))
    assert bool(heard(dialect)) is hears


@pytest.mark.parametrize("mode", ["auto", "realtime"])
def test_audio_that_does_not_come_is_silence(mode: str) -> None:
    dialect = listening(mode)
    heard(dialect, now_ms=1_000)
    assert dialect.deadline_ms() == 1_000 + GAP_MS
    filled = list(dialect.wake(1_000 + GAP_MS))
    assert filled == [AudioReceived(silence(FILLED_MS))] * (GAP_MS // FILLED_MS)
    heard(dialect, now_ms=1_500)
    assert dialect.deadline_ms() == 1_500 + GAP_MS
    assert len(list(dialect.wake(60_000))) == MOST_FILLED_MS // FILLED_MS
    assert dialect.deadline_ms() is None


def test_a_held_button_waits_for_audio() -> None:
    assert listening("manual").deadline_ms() is None


# --- wake words and typed text --------------------------------------------------------


@pytest.mark.parametrize("text", ["你好小智", "Hi, XiaoZhi!", "hey jarvis"])
def test_a_wake_word_is_answered_only_if_that_is_wanted(text: str) -> None:
    own = frozenset({"hey jarvis"})
    for answers in (False, True):
        options = DeviceOptions(wake_words=own, answer_wake_word=answers)
        dialect = open_dialect(options=options)
        said(dialect, **HELLO)
        reactions = said(dialect, type="listen", state="detect", text=text)
        assert (cmd.CommitTurn(text=text) in reactions) is answers


def test_other_text_is_what_the_user_has_typed() -> None:
    dialect = open_dialect()
    said(dialect, **HELLO)
    reactions = said(dialect, type="listen", state="detect", text="what time is it")
    assert cmd.CommitTurn(text="what time is it") in reactions
    assert said(dialect, type="listen", state="detect", text=" ") == [cmd.Alive()]


# --- what cannot be understood --------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"type": 7},
        {"type": "glyph_push", "glyphs": []},
        {"type": "listen"},
        {"type": "listen", "state": ["start"]},
        {"type": "listen", "state": "detect"},
        {"type": "mcp"},
        {"type": "mcp", "payload": {"id": 7, "result": 1}},
        {"type": "iot", "descriptors": []},
    ],
)
def test_unknown_messages_and_keys_are_ignored(message: dict[str, object]) -> None:
    dialect = open_dialect()
    said(dialect, **HELLO)
    assert said(dialect, **message) == [cmd.Alive()]


def test_garbage_in_a_row_closes_the_connection() -> None:
    dialect = open_dialect()
    said(dialect, **HELLO)
    for _ in range(MOST_ERRORS - 1):
        assert list(dialect.receive("{", 0)) == [cmd.Alive()]
    said(dialect, type="listen")
    for _ in range(MOST_ERRORS - 1):
        assert list(dialect.receive("{", 0)) == [cmd.Alive()]
    assert list(dialect.receive("{", 0)) == [cmd.Alive(), cmd.Leave("not valid JSON")]


def test_a_connection_must_say_hello() -> None:
    dialect = open_dialect()
    assert dialect.deadline_ms() == HELLO_MS
    assert isinstance(next(iter(dialect.wake(HELLO_MS))), cmd.Leave)
    assert any(isinstance(each, cmd.Leave) for each in dialect.receive("nonsense", 0))
    bad = said(dialect, type="hello", audio_params={"format": "mp3"})
    assert any(isinstance(each, cmd.Leave) for each in bad)


def test_an_abort_is_answered_although_nothing_is_said() -> None:
    dialect = listening("auto")
    reactions = said(dialect, type="abort")
    assert cmd.Cancel() in reactions
    assert told(reactions) == [{"type": "tts", "session_id": "s1", "state": "stop"}]


def test_time_stamps_say_what_was_played() -> None:
    dialect = open_dialect(headers={"protocol-version": "2"}, hands_free=True)
    said(dialect, **{**HELLO, "features": {"aec": True}})
    said(dialect, type="listen", state="start", mode="realtime")
    list(dialect.notify(nt.ReplyBegun(1, 0), 0))
    list(dialect.notify(nt.ReplyAudio(1, (b"p",) * 4, 240, 0), 10))
    list(dialect.notify(nt.ReplyBegun(2, 0), 500))
    list(dialect.notify(nt.ReplyAudio(2, (b"p",) * 4, 240, 0), 510))
    frame = struct.pack(">HHIII", 2, 0, 0, 300, len(PACKET)) + PACKET
    assert heard(dialect, frame, 600)[0] == cmd.Played(2, 60)


@pytest.mark.parametrize("emoji", ["😊", "😭", "🤔"])
def test_an_emoji_is_shown_once(emoji: str) -> None:
    dialect = open_dialect()
    list(dialect.notify(nt.ReplyBegun(1, 0), 0))
    shown = [list(dialect.notify(nt.ReplyText(1, f"{emoji} Oh!"), 0)) for _ in range(2)]
    assert [len(each) for each in shown] == [1, 0]
    list(dialect.notify(nt.ReplyBegun(2, 0), 0))
    assert list(dialect.notify(nt.ReplyText(2, emoji), 0))
    assert not list(dialect.notify(nt.ReplyText(2, "Hello ☎."), 0))


@pytest.mark.parametrize(("language", "words"), [("zh-CN", "表情符号"), ("", "one emoji")])
def test_the_model_is_told_to_write_emoji_unless_nobody_wants_them(
    language: str, words: str
) -> None:
    connection = Connection(agent=Agent(language=language, instructions="Be kind."))
    told = XiaozhiEndpoint().open(connection).settings.chat.instructions
    assert told.startswith("Be kind.\n\n")
    assert words in told
    plain = XiaozhiEndpoint(DeviceOptions(emotions=False)).open(connection)
    assert plain.settings.chat.instructions == "Be kind."


STEPS: list[dict[str, object]] = [
    {**HELLO, "features": {"mcp": True}},
    {"type": "mcp", "payload": {"id": 1, "result": {}}},
    {"type": "mcp", "payload": {"id": 2, "result": {"tools": [{"name": "self.light"}]}}},
    {"type": "listen", "state": "start", "mode": "manual"},
    {"type": "listen", "state": "detect", "text": "light, please"},
]


@pytest.mark.parametrize("steps", range(len(STEPS) + 1))
@pytest.mark.parametrize("wait_s", [0, 0.01, 1.0, 30.0])
async def test_a_device_may_go_at_any_time_and_leaves_nothing(steps: int, wait_s: float) -> None:
    call = ToolCall(0, "c1", "self_light", "{}")
    model = ScriptedModel(replies=[["One moment. ", call], ["It is on. " * 9]], first_ms=20)
    async with DeviceHarness(model=model) as device:
        for step in STEPS[:steps]:
            device.say(**step)
            await asyncio.sleep(0.01)
        await asyncio.sleep(wait_s)


SIGNS = EmotionSigns({"偷笑": "laughing", "🥳": "happy", "sad": "crying"})


@pytest.mark.parametrize(
    ("text", "spoken", "emotions"),
    [
        ("[happy] Hello. Well, [angry] no.", ["Hello.", "Well, no."], ["happy", "angry"]),
        ("【开心】你好呀！", ["你好呀！"], ["happy"]),
        ("[情绪：偷笑]嗯哼。", ["嗯哼。"], ["laughing"]),
        ("<emotion>cool</emotion> Yes.", ["Yes."], ["cool"]),
        ("<sleepy>Yes.", ["Yes."], ["sleepy"]),
        ("🥳 [sad] Yes.", ["Yes."], ["happy", "crying"]),
        ("[happy hour] See [1] cool.", ["[happy hour] See [1] cool."], []),
    ],
)
@pytest.mark.parametrize("step", [1, 3, 100])
def test_marks_are_shown_and_not_spoken(
    text: str, spoken: list[str], emotions: list[str], step: int
) -> None:
    speech, finder = SpeechPieces(SIGNS.words), EmotionFinder(SIGNS)
    pieces, found = [], []
    for start in range(0, len(text), step):
        pieces += speech.push_text(text[start : start + step])
        found.append(finder.find(text[start : start + step]))
    pieces += speech.finish_text()
    assert [piece.spoken for piece in pieces if piece.spoken] == spoken
    shown = [emotion for emotion, _ in filter(None, found)]
    assert shown == (emotions if step < 100 else emotions[-1:])


async def test_a_mark_is_shown_and_not_spoken_in_a_conversation() -> None:
    model = ScriptedModel(replies=[["【高", "兴】你好", "呀！"]])
    async with DeviceHarness(model=model) as device:
        device.hello()
        device.listen("detect", text="早上好")
        await device.until(lambda: device.said("tts", state="stop"))
    assert device.said("llm", text="🙂", emotion="happy")
    assert device.synthesizer.texts == ["你好呀！"]
    assert [each["text"] for each in device.said("tts", state="sentence_start")] == ["你好呀！"]
