"""A client of speech-chat that checks the rules of ``protocol/README.md``."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
import pybase64
from typing_extensions import override

from voicechat.dialects.base import Frame
from voicechat.dialects.speech_chat.codec import BINARY_HEADER
from voicechat.errors import Status
from voicechat.testing.simulation.clients.client import SaidTurn, SimulatedClient, Surroundings
from voicechat.testing.simulation.providers import head_of
from voicechat.testing.simulation.scenario import Mishap, Turn, Visit
from voicechat.testing.simulation.servers import KEY

_ANSWERS = {
    "chat.update": "chat.updated",
    "input_audio_buffer.complete": "input_audio_buffer.completed",
    "input_audio_buffer.clear": "input_audio_buffer.cleared",
    "conversation.clear": "conversation.cleared",
    "conversation.chat.cancel": "conversation.chat.canceled",
    "ping": "pong",
}
_GARBAGE = (
    ("{", Status.MALFORMED),
    ('{"event_type": 7}', Status.MALFORMED),
    ('{"event_type": "nothing.known"}', Status.UNKNOWN_EVENT),
    ('{"event_type": "conversation.message.create", "role": "user"}', Status.MALFORMED),
)


@dataclass(eq=False, slots=True)
class _AwaitedAnswer:
    """A request that is not answered yet."""

    answer: str
    said: SaidTurn | None = None
    """Of ``complete``: what it commits."""
    status: int = 0
    """Of garbage: the error that it must earn."""
    spoken_at: list[tuple[int, float]] = field(default_factory=list)
    """Of ``complete``: the words that it commits, and when they were sent."""
    forgets: list[SaidTurn] = field(default_factory=list)
    """Of ``conversation.clear``: the turns that are forgotten."""


class SpeechChatClient(SimulatedClient):
    """See the module."""

    def __init__(self, visit: Visit, world: Surroundings) -> None:
        super().__init__(visit, world)
        self.target = (
            f"/api/open-apis/chat/speech-chat?token={KEY}&model=default"
            "&asr_easyllm_id=default&tts_easyllm_id=default"
        )
        self.begin()

    @override
    def begin(self) -> None:
        self._created = False
        self._configured = False
        self._awaited: deque[_AwaitedAnswer] = deque()
        self._open: SaidTurn | None = None
        """The turn that was granted and has not ended."""
        self._spoken: list[tuple[int, float]] = []
        """Words for the next turn, and when they were sent."""
        self._typed: deque[SaidTurn] = deque()
        """Turns that were typed and of which nothing has come yet."""
        self._finals: list[str] = []
        """Final results since the last turn."""
        self._said_in_turn: set[int] = set()
        """Words that were sent after the turn was granted and before its end came."""
        self._over_ids: set[str] = set()
        """Ids of replies of which nothing more may come."""
        self._sequence = 0
        self._broken = False
        """Recognition has failed since the last turn."""
        self._unheard: set[int] = set()
        """Words that came during a turn, certainly."""

    @property
    @override
    def admitted(self) -> bool:
        return self._configured

    @property
    @override
    def settled(self) -> bool:
        return not self._awaited and self._open is None and not self._typed

    # --- up ---------------------------------------------------------------------------

    def _ask(self, event_type: str, **fields: object) -> _AwaitedAnswer:
        awaited = _AwaitedAnswer(_ANSWERS[event_type])
        self._awaited.append(awaited)
        self.send(orjson.dumps({"event_type": event_type, **fields}).decode())
        return awaited

    def _configure(self) -> None:
        options = self.visit.options
        message: dict[str, Any] = {
            "create_transcription_task_req": {
                "heartbeat": True,
                "speech_recognition_param": {"format": "pcm", "sample_rate": 16000},
            },
            "chat_completion_with_voice_output_req": {
                "chat_completion_req": {},
                "speech_synthesis_req": {"synthesis_param": {"format": "PCM_16000HZ_MONO_16BIT"}},
            },
            "asr_mode": "refresh" if "refresh" in options else "online",
        }
        if "binary" in options:
            message["downlink"] = "binary"
        if "paced" in options:
            message["pacing"] = {"lead_ms": 1000}
        self._ask("chat.update", message=message)

    @override
    def say(self, turn: Turn, words: tuple[int, ...]) -> None:
        self._spoken += [(word, self.loop.time()) for word in words]
        if self._open is not None and self._open.granted:
            self._said_in_turn.update(words)
        self.send(self.speech(words))

    @override
    def commit(self, turn: Turn) -> None:
        awaited = self._ask("input_audio_buffer.complete")
        awaited.spoken_at, self._spoken = self._spoken, []
        awaited.said = SaidTurn([word for word, _ in awaited.spoken_at], turn)

    @override
    def type(self, turn: Turn) -> None:
        said = SaidTurn(list(turn.words), turn, text=turn.text, granted=True)
        self._typed.append(said)
        self.history.append(said)
        self.send(
            orjson.dumps(
                {"event_type": "conversation.message.create", "role": "user", "content": turn.text}
            ).decode()
        )

    @override
    def suffer(self, mishap: Mishap, turn: Turn) -> None:
        match mishap.kind:
            case "cancel":
                self._ask("conversation.chat.cancel")
            case "clear":
                self._ask("input_audio_buffer.clear")
                self._spoken = []
                for each in self._awaited:
                    each.spoken_at = []  # forgotten, too, if it is not granted
            case "forget":
                before = [each.said for each in self._awaited if each.said is not None]
                self._ask("conversation.clear").forgets = [*self.history, *before]
                self.unsure = True
            case "talk over":
                self.say(turn, self.more_words())
            case "ping":
                self._ask("ping")
            case "garbage":
                text, status = self.random.choice(_GARBAGE)
                self._awaited.append(_AwaitedAnswer("error", status=status))
                self.send(text)
            case "played":
                if self._open is not None and self._open.reply_id:
                    self._open.lenient = True
                    self.send(
                        orjson.dumps(
                            {
                                "event_type": "conversation.audio.played",
                                "reply": self._open.reply_id,
                                "played_ms": 200,
                            }
                        ).decode()
                    )
            case "complete again":
                self.commit(turn)
            case _:
                raise ValueError(f"speech-chat knows no mishap {mishap.kind!r}")

    # --- down -------------------------------------------------------------------------

    @override
    def hear(self, frame: Frame) -> None:
        if isinstance(frame, bytes):
            self._hear_binary(frame)
            return
        message = orjson.loads(frame)
        if "audioFrame" in message:
            self._hear_audio(message)
        elif "choices" in message:
            self._hear_chunk(message)
        elif "is_sentence_end" in message:
            self._hear_result(message)
        else:
            self._hear_event(message)
            self.changed.set()

    def _hear_event(self, message: Mapping[str, Any]) -> None:
        name, status = message["event_type"], message["status"]
        if name == "chat.created":
            self.require(not self._created, "rule 1", "chat.created comes twice")
            self._created = True
            if status == 0:
                self._configure()
            return
        if name == "conversation.chat.completed":
            self._end_turn()
            return
        if name == "error" and not 40000 < status < 40003:
            self._hear_error(status, message["message"])
            return
        if not self._awaited or self._awaited[0].answer != name:
            wanted = self._awaited[0].answer if self._awaited else "nothing"
            self.violated("rule 1", f"{name} ({status}) came where {wanted} was awaited")
            return
        awaited = self._awaited.popleft()
        if name == "error":
            self.require(
                status == awaited.status, "rule 1", f"garbage earned {status}, not {awaited.status}"
            )
        elif name == "chat.updated":
            self._configured = True
            self.require(status == 0, "rule 1", f"chat.updated {status}: {message['message']}")
        elif name == "input_audio_buffer.completed":
            self._hear_completed(awaited, status)
        elif name == "conversation.chat.canceled":
            self._hear_canceled()
        elif name == "input_audio_buffer.cleared":
            if self._open is None:
                self._finals, self._broken = [], False
        elif name == "conversation.cleared":
            self.forget(awaited.forgets)
        elif name == "pong":
            self.require(status == 0, "rule 1", f"pong with {status}")

    def _hear_completed(self, awaited: _AwaitedAnswer, status: int) -> None:
        said = awaited.said
        assert said is not None
        if status == 0:
            self.require(self._open is None, "rule 2", "complete was granted during a turn")
            said.granted = True
            said.failed, self._broken = self._broken, False
            self._open = said
            self.history.append(said)
        else:
            self._spoken = awaited.spoken_at + self._spoken
            self.require(
                status == Status.NOT_ALLOWED_NOW,
                "rule 2",
                f"complete earned {status}",
            )

    def _hear_canceled(self) -> None:
        said = self._turn()
        if said is not None:
            said.cancelled, said.cancelled_s = True, self.loop.time()
            if said.reply_id:
                self._over_ids.add(said.reply_id)

    def _hear_error(self, status: int, text: str) -> None:
        said = self._turn()
        if status == Status.INTERNAL:
            self.violated("fault", f"error {status}: {text}")
        elif status == Status.AT_CAPACITY:
            self.excuses.add("restart")
        elif status == Status.TIMEOUT:
            self.require(self.excuses, "end", f"error {status}: {text}")
        elif said is not None:
            said.failed = True
        elif status == Status.ASR_FAILED:
            self._broken = True
        else:
            self.violated("rule 1", f"error {status} outside of a turn: {text}")

    def _turn(self) -> SaidTurn | None:
        """Return the open turn; one that was typed is open from its first sign on."""
        if self._open is None and self._typed:
            self._open = self._typed.popleft()
        return self._open

    def _end_turn(self) -> None:
        said = self._turn()
        if said is None:
            self.violated("rule 2", "conversation.chat.completed without a turn")
            return
        self._open = None
        said.ended, said.ended_s = True, self.loop.time()
        if said.reply_id:
            self._over_ids.add(said.reply_id)
            self.check_speech(said)
        elif not said.text:
            self._settle_text(said)
        self._note_unheard(said)
        cancelling = any(each.answer.endswith("canceled") for each in self._awaited)
        excused = cancelling or "not reading" in self.excuses
        if said.failed or said.cancelled or excused or not said.text:
            return
        self.require(said.finished, "rule 2", f"a turn ended without finish: {said.text!r}")
        self.require(said.reply_id, "rule 2", f"a turn was not answered: {said.text!r}")

    def _note_unheard(self, said: SaidTurn) -> None:
        """A turn is over: note the words that the server has received during it,
        whatever the network has done: before the last speech of the reply was made.
        """
        quality = self.visit.quality
        until_s = self.world.stage.spoken_s.get(head_of(said.text), -1.0)
        until_s -= quality.delay_s + quality.jitter_s + 0.01
        self._unheard |= {
            word for word, sent_s in self._spoken if word in self._said_in_turn and sent_s < until_s
        }
        self._said_in_turn.clear()

    def _hear_result(self, message: Mapping[str, Any]) -> None:
        if message["is_sentence_end"]:
            self._finals.append(message["text"])

    def _settle_text(self, said: SaidTurn) -> None:
        """All that was said in the turn has been told: check it."""
        heard = " ".join(self._finals).split()
        self._finals = []
        said.text = " ".join(heard)
        wanted = [f"w{word}" for word in said.words]
        if said.failed or said.cancelled or "refresh" in self.visit.options:
            rest = iter(wanted)
            self.require(
                all(word in rest for word in heard),
                "recognition",
                f"heard {heard}, said {wanted}",
            )
        else:
            self.require(heard == wanted, "recognition", f"heard {heard}, said {wanted}")
        if "refresh" in self.visit.options:
            late = [word for word in self._unheard if f"w{word}" in heard]
            self.require(not late, "rule 7", f"{late} were said during a turn, and were heard")

    def _reply_begins(self, reply_id: str) -> SaidTurn | None:
        said = self._turn()
        if reply_id in self._over_ids:
            self.violated("rule 3", "something came of a reply that is over")
            return None
        if said is None:
            self.violated("rule 2", "a reply outside of a turn")
            return None
        if not said.reply_id:
            said.reply_id = reply_id
            self._sequence = 0
            if not said.text:
                self._settle_text(said)
                self.require(said.text, "rule 5", "a reply before the final result")
        self.require(said.reply_id == reply_id, "rule 4", "two replies in one turn")
        return said

    def _hear_chunk(self, message: Mapping[str, Any]) -> None:
        said = self._reply_begins(message["id"])
        if said is not None:
            choice = message["choices"][0]
            said.reply += choice["delta"]["content"] or ""
            self.check_reply(said)

    def _hear_audio(self, message: Mapping[str, Any]) -> None:
        said = self._reply_begins(message["id"])
        if said is None:
            return
        self.require(not said.finished, "rule 4", "audio after finish")
        if message["status"] == "finish":
            said.finished = True
        elif message["audioFrame"]:
            self.hear_speech(said, pybase64.b64decode(message["audioFrame"]))

    def _hear_binary(self, frame: bytes) -> None:
        number, sequence, position_ms = BINARY_HEADER.unpack_from(frame)
        said = self._turn()
        if said is None:
            self.violated("rule 3", f"audio of reply {number} outside of a turn")
            return
        self.require(not said.finished, "rule 4", "audio after finish")
        if sequence == 0:
            self._sequence = 0
        self.require(sequence == self._sequence, "rule 4", f"audio {sequence} out of its order")
        self._sequence = sequence + 1
        self.require(
            abs(position_ms - said.audio_ms) < 2,
            "rule 4",
            f"audio at {position_ms} ms, after {said.audio_ms} ms",
        )
        self.hear_speech(said, frame[BINARY_HEADER.size :])
