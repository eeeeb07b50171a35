"""The rules of a device's connection: how it listens, when it speaks, what interrupts.

A device says hello first. Then it listens in one of three modes (``Mode``), and the
server sends it what was understood, what to show and what to play. Unknown messages and
keys are ignored, because newer firmware has more of them.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from typing_extensions import override

from voicechat.audio.formats import Container, packet_format
from voicechat.dialects.base import Connection, Dialect, Frame, Reaction, Tell
from voicechat.dialects.drawings import Drawing
from voicechat.dialects.xiaozhi.codec import (
    MAX_TEXT_CHARACTERS,
    FrameCodec,
    Hello,
    MessageWriter,
    Mode,
    audible,
    read_hello,
    read_mode,
    silence,
)
from voicechat.dialects.xiaozhi.device_tools import DeviceTools, ToolCalls, Vision
from voicechat.dialects.xiaozhi.emotions import EmotionFinder, EmotionSigns
from voicechat.dialects.xiaozhi.speech import DeviceSpeech, lead_ms
from voicechat.errors import RemoteProtocolError
from voicechat.schema.json_text import read_object
from voicechat.session import commands as cmd
from voicechat.session import notices as nt
from voicechat.session.events import AudioReceived
from voicechat.session.filler import Filler
from voicechat.session.limits import earliest_ms
from voicechat.session.types import InputSettings, Settings, TurnDetection

HELLO_MS = 10_000
"""The longest wait for the device's hello; a connection that sends none is closed."""
MOST_ERRORS = 50
"""This many malformed messages in a row close the connection."""
BITRATE_BPS = 24_000
"""The bit rate of the Opus that is sent to a device: 16 to 20 kbit/s is wide-band
speech (RFC 6716, section 2.1.1), and a display's Wi-Fi can carry a little more.
"""
GAP_MS = 400
"""While the server listens for the end of a turn, audio that is this late counts as
silence: a device may send nothing while nobody speaks.
"""
HELD_SILENCE_MS = 3_000
"""While a button is held, this much audio without speech ends the turn if it contained
speech: load generators and some clients never report the release of the button.
"""
SPARSEST_BYTES_PER_S = 300
"""Packets with a lower rate hold no speech: no codec needs less (Speex at 2.15 kbit/s
has 270).
"""
FILLED_MS = 120
"""The length of the pieces of silence that replace missing audio."""
MOST_FILLED_MS = 6_000
"""The most silence that replaces missing audio: more than any silence that ends a turn.
"""
ALERTS: Mapping[str, str] = {"zh": "出错了", "en": "Error"}
"""The title of an alert, by language."""
FILLER = Filler(en="One moment, please.", zh="请稍等。")
"""Spoken while the device carries out a tool, unless its agent has a filler."""
WAKE_WORDS = ("你好小智", "嗨小智", "小智小智", "小智同学", "hi小智", "hi xiaozhi", "hey xiaozhi")
"""What devices send for their wake word, besides the configured ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceOptions:
    """Options for devices, set by the keys of ``[devices]``."""

    wake_words: frozenset[str] = frozenset()
    """Texts of ``listen detect`` that are wake words, besides ``WAKE_WORDS``; each in
    the form of ``plain_words``.
    """
    answer_wake_word: bool = False
    """True: the model answers the wake word as if the user had said it. False: the
    device only listens.
    """
    alerts: bool = True
    """True: the display shows failures."""
    emotions: bool = True
    """True: the model's instructions ask for an emoji at the beginning of each answer.
    """
    signs: EmotionSigns = field(default_factory=EmotionSigns)
    """The emoji and words of the model that stand for emotions."""


class XiaozhiDialect(Dialect):
    """One connection. See the module and ``Dialect``."""

    shows_drawings = True

    def __init__(
        self,
        connection: Connection,
        settings: Settings,
        *,
        options: DeviceOptions,
        vision: Vision,
    ) -> None:
        """``settings`` are the connection's; each mode changes some of them."""
        self._connection = connection
        self._settings = settings
        self._options = options
        self._language = connection.agent.language.lower().partition("-")[0] or "zh"
        self._writer = MessageWriter(connection.session_id)
        self._codec = FrameCodec()
        self._hello: Hello | None = None
        self._speech = DeviceSpeech(self._codec, self._writer, Hello(version=1).packet_ms)
        self._emotions = EmotionFinder(options.signs)
        self._tools = DeviceTools(self._writer, vision)
        self._tool_calls = ToolCalls()
        self._mode = Mode.AUTO
        self._listening = False
        """Whether the microphone's audio is used: between ``start`` and ``stop``."""
        self._quiet_ms: int | None = None
        """How long packets have held no speech while the button is held; None: none has
        held speech yet.
        """
        self._heard_ms = 0
        """When the last packet came, or when silence last replaced one."""
        self._filled_ms = 0
        """How much silence has replaced audio since the last packet."""
        self._reply = 0
        self._reply_from_ms = 0
        """The reply whose audio was sent last, and the time stamp at its beginning."""
        self._errors = 0

    # --- up ---------------------------------------------------------------------------

    @override
    def receive(self, frame: Frame, now_ms: int) -> Iterator[Reaction]:
        if frame and isinstance(frame, bytes):
            yield from self._on_audio(frame, now_ms)
            return
        yield cmd.Alive()
        if not frame:
            return
        try:
            message = read_object(frame)
            reader = _READERS.get(str(message.get("type")))
            reactions = () if reader is None else reader(self, message, now_ms)
            yield from reactions
        except RemoteProtocolError as error:
            self._errors += 1
            if self._hello is None or self._errors >= MOST_ERRORS:
                yield cmd.Leave(error.message)
            return
        self._errors = 0

    @override
    def pong(self, now_ms: int) -> Iterable[Reaction]:
        return (cmd.Alive(),) if self._hello is not None else ()

    def _on_audio(self, frame: bytes, now_ms: int) -> Iterator[Reaction]:
        audio = self._codec.read(frame)
        hello = self._hello
        if audio is None or hello is None or not self._hears:
            return
        if audio.stamp_ms and hello.echo and self._reply:
            played_ms = audio.stamp_ms - self._reply_from_ms
            if played_ms > 0:
                yield cmd.Played(self._reply, played_ms)
        self._heard_ms, self._filled_ms = now_ms, 0
        packet = audio.packet
        yield AudioReceived(packet if hello.raw_input else audible(packet, hello.packet_ms))
        if self._mode is Mode.MANUAL and not hello.raw_input:
            yield from self._on_held(len(packet), hello.packet_ms)

    def _on_held(self, size_bytes: int, packet_ms: int) -> Iterator[Reaction]:
        """Handle a packet that came while a button is held: end the turn after
        ``HELD_SILENCE_MS`` without speech.
        """
        if size_bytes * 1000 >= SPARSEST_BYTES_PER_S * packet_ms:
            self._quiet_ms = 0
        elif self._quiet_ms is not None:
            self._quiet_ms += packet_ms
            if self._quiet_ms >= HELD_SILENCE_MS:
                self._listening = False  # until the button is pressed again
                yield cmd.CommitTurn()

    @property
    def _hears(self) -> bool:
        """Whether the microphone's audio is used now. In ``AUTO`` it is not used while
        the device speaks: audio that comes then was sent before the device began to
        speak.
        """
        return self._listening and not (self._mode is Mode.AUTO and self._speech.speaking)

    def _on_hello(self, message: Mapping[str, object], now_ms: int) -> Iterator[Reaction]:
        if self._hello is not None:
            yield Tell(self._writer.hello(self._hello))  # a repeated hello
            return
        header = self._connection.handshake.headers.get("protocol-version", "")
        hello = self._hello = read_hello(message, header)
        self._codec.version = hello.version
        self._speech = DeviceSpeech(self._codec, self._writer, hello.packet_ms)
        spoken = packet_format(Container.OPUS, hello.rate_hz, hello.packet_ms, BITRATE_BPS)
        self._settings = replace(
            self._settings,
            input=InputSettings(
                format="pcm" if hello.raw_input else "opus_raw",
                sample_rate_hz=hello.input_rate_hz,
            ),
            voice=replace(
                self._settings.voice,
                format=spoken.name,
                piece_ms=hello.packet_ms,
                marks=self._options.signs.words,
            ),
            lead_ms=lead_ms(hello.packet_ms),
        )
        yield self._configured()
        yield Tell(self._writer.hello(hello))
        if hello.mcp:
            yield from self._tools.begin(now_ms)

    def _on_listen(self, message: Mapping[str, object], now_ms: int) -> Iterator[Reaction]:
        if self._hello is None:
            return
        match message.get("state"):
            case "start":
                yield from self._on_start(read_mode(message, self._mode), now_ms)
            case "stop" if self._listening:
                self._listening = False
                yield cmd.CommitTurn()
            case "detect":
                yield from self._on_detect(message.get("text"))
            case _:
                pass

    def _on_start(self, mode: Mode, now_ms: int) -> Iterator[Reaction]:
        if self._listening and mode is self._mode:
            return  # a repeated start changes nothing
        if mode is Mode.MANUAL:  # the user speaks now, whatever is being answered
            yield cmd.Cancel()
            yield from self._speech.stop()
        changed, self._mode = mode is not self._mode, mode
        self._listening, self._heard_ms, self._filled_ms = True, now_ms, 0
        self._quiet_ms = None
        if changed:
            yield self._configured()
        if mode is Mode.MANUAL:
            yield cmd.ClearInput()
        else:
            yield cmd.Begin()

    def _on_detect(self, text: object) -> Iterator[Reaction]:
        """Handle a wake word or typed text: devices send both in the same message."""
        if not isinstance(text, str) or not text.strip():
            return
        words = text.strip()[:MAX_TEXT_CHARACTERS]
        plain = plain_words(words)
        is_wake_word = plain in WAKE_WORDS or plain in self._options.wake_words
        if not is_wake_word or self._options.answer_wake_word:
            yield cmd.CommitTurn(text=words)

    def _on_abort(self, message: Mapping[str, object], now_ms: int) -> Iterator[Reaction]:
        """Stop speaking. The device waits for ``tts stop``, whether or not a reply is
        in progress.
        """
        was_speaking = self._speech.speaking
        yield cmd.Cancel()
        self._tools.forget_calls()
        if self._speech.speaking:
            yield from self._speech.stop()
        elif not was_speaking:
            yield Tell(self._writer.tts("stop"))

    def _on_mcp(self, message: Mapping[str, object], now_ms: int) -> Iterator[Reaction]:
        known = self._tools.complete
        yield from self._tools.receive(message.get("payload"), now_ms)
        if self._tools.complete and not known:
            yield from self._with_tools()

    def _with_tools(self) -> Iterator[Reaction]:
        if not self._tools.functions:
            return
        chat = self._settings.chat
        own = chat.options.get("tools")
        tools = [*(own if isinstance(own, list) else ()), *self._tools.functions]
        options = {**chat.options, "tools": tools}
        self._settings = replace(
            self._settings,
            chat=replace(chat, options=options, answers_tools=True, filler=chat.filler or FILLER),
        )
        yield self._configured()

    def _configured(self) -> cmd.Configure:
        """Return the command that sets the settings for the device's mode."""
        detection = self._connection.agent.turn_detection or TurnDetection()
        if self._mode is Mode.AUTO:
            detection = replace(detection, interrupt_response=False)
        found_by_server = self._connection.hands_free and self._mode is not Mode.MANUAL
        return cmd.Configure(
            replace(
                self._settings,
                input=replace(self._settings.input, silence_allowed=self._mode is Mode.MANUAL),
                turn_detection=detection if found_by_server else None,
                half_duplex=self._mode is Mode.AUTO,
            )
        )

    # --- down -------------------------------------------------------------------------

    @override
    def notify(self, notice: nt.Notice, now_ms: int) -> Iterable[Reaction]:
        match notice:
            case nt.UserSaid(item):
                return (Tell(self._writer.stt(str(item.message.get("content", "")))),)
            case nt.ReplyBegun(reply):
                self._emotions.begin()
                self._reply, self._reply_from_ms = reply, self._speech.stamp_ms
                return self._speech.start(now_ms)
            case nt.ReplyText(_, text):
                found = self._emotions.find(text)
                return () if found is None else (Tell(self._writer.emotion(*found)),)
            case nt.SentenceBegun(_, _, text):
                return self._speech.sentence(text, now_ms)
            case nt.ReplyAudio(_, packets):
                return self._speech.play(packets, now_ms)
            case nt.ReplyToolCall(_, call):
                self._tool_calls.add(call.index, call.id, call.name, call.arguments)
            case nt.ReplyTextFinished():
                return self._called(now_ms)
            case nt.ReplyAudioFinished():
                self._speech.finish(now_ms)
            case nt.ReplyCut() | nt.Interrupted():
                self._tools.forget_calls()
                return self._speech.stop()
            case nt.ReplyEnded(outcome=outcome):
                return self._ended(outcome, now_ms)
            case nt.TurnCompleted():
                self._speech.finish(now_ms)
            case nt.Failed(_, message) if self._options.alerts:
                title = ALERTS.get(self._language, ALERTS["en"])
                return (Tell(self._writer.alert(title, message, "sad")),)
            case nt.Ended():
                return self._speech.stop()
            case _:
                pass
        return ()

    @override
    def show_drawing(self, drawing: Drawing, now_ms: int) -> Iterable[Reaction]:
        # Displays write the text of a sentence, whether or not they speak it.
        return (Tell(self._writer.tts("sentence_start", drawing.address or drawing.failure)),)

    def _called(self, now_ms: int) -> Iterator[Reaction]:
        for call_id, name, arguments in self._tool_calls.take():
            yield from self._tools.call(call_id, name, arguments, now_ms)

    def _ended(self, outcome: nt.Outcome, now_ms: int) -> Iterable[Reaction]:
        self._tool_calls.take()
        if outcome is nt.Outcome.CANCELED:
            return self._speech.stop()
        self._speech.finish(now_ms)
        return ()

    # --- the clock --------------------------------------------------------------------

    @override
    def deadline_ms(self) -> int | None:
        hello_ms = HELLO_MS if self._hello is None else None
        return earliest_ms(
            hello_ms, self._speech.deadline_ms(), self._tools.deadline_ms(), self._filling_ms
        )

    @override
    def wake(self, now_ms: int) -> Iterator[Reaction]:
        if self._hello is None:
            if now_ms >= HELLO_MS:
                yield cmd.Leave("the device did not say hello")
            return
        yield from self._speech.wake(now_ms)
        known = self._tools.complete
        yield from self._tools.wake(now_ms)
        if self._tools.complete and not known:
            yield from self._with_tools()
        while self._filling_ms is not None and now_ms >= self._filling_ms:
            self._filled_ms += FILLED_MS
            if not self._hello.raw_input:
                yield AudioReceived(silence(FILLED_MS))
            else:
                yield AudioReceived(bytes(2 * self._hello.input_rate_hz * FILLED_MS // 1000))

    @property
    def _filling_ms(self) -> int | None:
        """When silence next replaces audio that has not come; None: never."""
        if not self._hears or self._mode is Mode.MANUAL or self._filled_ms >= MOST_FILLED_MS:
            return None
        return self._heard_ms + max(GAP_MS, self._filled_ms + FILLED_MS)


def plain_words(text: str) -> str:
    """Return a wake word in the form for comparison: lower case, no punctuation."""
    return "".join(char for char in text.lower() if char.isalnum() or char == " ").strip()


_READERS = {
    "hello": XiaozhiDialect._on_hello,
    "listen": XiaozhiDialect._on_listen,
    "abort": XiaozhiDialect._on_abort,
    "mcp": XiaozhiDialect._on_mcp,
}
