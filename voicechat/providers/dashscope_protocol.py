"""The messages of DashScope's inference socket: JSON commands and events, audio in
binary messages. No I/O.

As in the public Python SDK (github.com/dashscope/dashscope-sdk-python, 1.26), in its
folder ``dashscope``: ``protocol/websocket.py`` (names),
``api_entities/websocket_request.py`` (order of the messages),
``audio/asr/recognition.py`` (sentences), ``audio/tts_v2/speech_synthesizer.py``
(synthesis).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import orjson
from pydantic import BaseModel, ValidationError

from voicechat.errors import FailureKind, ProviderError
from voicechat.session.types import Transcript, Word

PROVIDER = "dashscope"


@dataclass(frozen=True, slots=True)
class TaskKind:
    """The kind of task that ``run-task`` starts."""

    task: Literal["asr", "tts"]
    function: Literal["recognition", "SpeechSynthesizer"]
    model: str

    def payload(self, given: Mapping[str, object]) -> dict[str, object]:
        """Return the part of ``run-task`` and ``continue-task`` that names the task."""
        return {
            "model": self.model,
            "task_group": "audio",
            "task": self.task,
            "function": self.function,
            **given,
        }


def run_task(task_id: str, kind: TaskKind, parameters: Mapping[str, object]) -> str:
    """Return the message that starts a task."""
    return _command("run-task", task_id, kind.payload({"parameters": parameters, "input": {}}))


def continue_task(task_id: str, kind: TaskKind, text: str) -> str:
    """Return the message with more text to speak. Raises `ProviderError` (REJECTED) for
    a lone surrogate.
    """
    return _command("continue-task", task_id, kind.payload({"input": {"text": text}}))


def finish_task(task_id: str) -> str:
    """Return the message that ends the input."""
    return _command("finish-task", task_id, {"input": {}})


def _command(action: str, task_id: str, payload: Mapping[str, object]) -> str:
    header = {"action": action, "task_id": task_id, "streaming": "duplex"}
    try:
        return orjson.dumps({"header": header, "payload": payload}).decode()
    except orjson.JSONEncodeError as error:
        raise ProviderError(PROVIDER, FailureKind.REJECTED, "the text is no Unicode") from error


class SpokenWord(BaseModel):
    """One word of a sentence. Times are milliseconds of the task's audio."""

    text: str
    begin_time: int
    end_time: int | None = None
    punctuation: str | None = None
    fixed: bool = False


class Sentence(BaseModel):
    """The result of one sentence so far."""

    text: str = ""
    begin_time: int | None = None
    end_time: int | None = None
    sentence_end: bool | None = None
    heartbeat: bool | None = None
    words: list[SpokenWord] | None = None

    @property
    def final(self) -> bool:
        """Whether it is final. Old models mark that by an end time, new ones by a
        field.
        """
        return self.end_time is not None if self.sentence_end is None else self.sentence_end


@dataclass(frozen=True, slots=True)
class TaskStarted:
    """The service is ready for the task's input."""


@dataclass(frozen=True, slots=True)
class TaskFinished:
    """All results have been sent; the connection may be used for another task."""


Event: TypeAlias = TaskStarted | TaskFinished | Sentence


class _MessageHeader(BaseModel):
    event: str
    task_id: str = ""
    error_code: str | int | None = None
    error_message: str | None = None


class _Output(BaseModel):
    sentence: Sentence | None = None


class _Payload(BaseModel):
    output: _Output | None = None


class _Message(BaseModel):
    header: _MessageHeader
    payload: _Payload | None = None


def read_event(text: str, task_id: str) -> Event | None:
    """Parse a text message; None if it does not concern the task.

    Raises `ProviderError`: BROKEN for an invalid event, and the failure that
    ``task-failed`` reports.
    """
    try:
        message = _Message.model_validate_json(text)
    except ValidationError as error:
        where = ".".join(map(str, error.errors(include_input=False)[0]["loc"]))
        raise ProviderError(PROVIDER, FailureKind.BROKEN, f"no event: {where}") from None
    header = message.header
    if header.task_id not in ("", task_id):
        return None  # the last event of an earlier task on this connection
    match header.event:
        case "task-started":
            return TaskStarted()
        case "task-finished":
            return TaskFinished()
        case "task-failed":
            raise _failure(str(header.error_code or ""), header.error_message or "")
        case "result-generated" if (
            message.payload is not None and message.payload.output is not None
        ):
            return message.payload.output.sentence
        case _:
            return None


def _failure(code: str, message: str) -> ProviderError:
    """Return the failure for an error code. The message's text may quote the input, so
    it is discarded.
    """
    lowered = code.lower()
    if "timeout" in lowered or "timeout" in message.lower():
        kind = FailureKind.TIMEOUT
    elif lowered.startswith("throttling") or "ratequota" in lowered:
        kind = FailureKind.RATE_LIMIT
    elif lowered.startswith(
        ("internal", "system", "serviceunavailable", "modelservicefailed", "modelunavailable")
    ):
        kind = FailureKind.CONNECTIVITY
    else:
        kind = FailureKind.REJECTED
    return ProviderError(PROVIDER, kind, f"task-failed: {code[:80]}")


class DashScopeTranscripts:
    """Converts the sentences of one task to transcripts with the stream's times."""

    def __init__(self, offset_ms: int) -> None:
        """``offset_ms``: position of the task's audio in the stream."""
        self._offset_ms = offset_ms
        self._open: Transcript | None = None

    def read_sentence(self, sentence: Sentence) -> Transcript | None:
        """Return the transcript of a result, or None if nothing has changed."""
        if sentence.heartbeat:
            return None
        shown = self._open
        if not sentence.text:
            # A sentence that was shown is closed even if the service withdraws it.
            return self.close(shown.begin_ms) if shown is not None and sentence.final else None
        words = tuple(self._word(word, sentence.final) for word in sentence.words or ())
        begin_ms = self._begin_ms(sentence, words)
        if not sentence.final:
            if shown is not None and shown.text == sentence.text:
                return None
            self._open = Transcript(sentence.text, begin_ms, None, words)
            return self._open
        self._open = None
        last_ms = words[-1].end_ms if words else begin_ms
        end_ms = last_ms if sentence.end_time is None else sentence.end_time + self._offset_ms
        return Transcript(sentence.text, begin_ms, max(begin_ms, end_ms), words)

    def close(self, heard_ms: int) -> Transcript | None:
        """Make the open sentence final. ``heard_ms``: end of the audio, used if no word
        has a time.
        """
        shown, self._open = self._open, None
        if shown is None:
            return None
        end_ms = max(shown.begin_ms, shown.words[-1].end_ms if shown.words else heard_ms)
        return Transcript(shown.text, shown.begin_ms, end_ms, shown.words)

    def _begin_ms(self, sentence: Sentence, words: tuple[Word, ...]) -> int:
        if sentence.begin_time is not None:
            return sentence.begin_time + self._offset_ms
        return words[0].begin_ms if words else self._offset_ms

    def _word(self, word: SpokenWord, final: bool) -> Word:
        begin_ms = word.begin_time + self._offset_ms
        end_ms = begin_ms if word.end_time is None else word.end_time + self._offset_ms
        return Word(
            word.text, begin_ms, max(begin_ms, end_ms), word.punctuation or "", word.fixed or final
        )
