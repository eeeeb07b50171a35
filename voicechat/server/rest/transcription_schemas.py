"""What the transcription endpoints are asked and what they answer."""

from typing import Annotated, Literal

from pydantic import WithJsonSchema

from voicechat.schema.checked import Check, Section, between, one_of
from voicechat.server.rest.schemas import Answer

RecordingPart = Annotated[bytes, WithJsonSchema({"type": "string", "format": "binary"})]
"""A form's file. It is streamed to disk, so nothing of it ever becomes part of a model: it is only described."""


class TranscriptionRequest(Section):
    """A task to be made; the same as the field ``data`` of a form, where ``audio_url`` is not needed."""

    easyllm_id: str
    """A configured recognition service."""
    audio_url: str = ""
    """Where the recording is to be fetched: http or https, a public address."""


class TranscriptionForm(Section):
    """A task and its recording, in any order."""

    data: TranscriptionRequest
    audio_file: RecordingPart


class RecognitionParam(Section):
    """How a recording is to be read. All of it is in the recording's own header: it is checked, and ignored."""

    model: str = ""
    """Ignored."""
    sample_rate: Annotated[int, between(8000, 192_000)] = 16_000
    format: str = ""


class NonStreamRequest(Section):
    """A recording to be recognised at once."""

    easyllm_id: str
    """A configured recognition service."""
    audio_url: str = ""
    """Where the recording is to be fetched: http or https, a public address."""
    speech_recognition_param: RecognitionParam = RecognitionParam()


class NonStreamForm(Section):
    """The same and the recording, in any order."""

    data: NonStreamRequest
    audio_file: RecordingPart


FORMATS = ("json", "text", "srt", "verbose_json", "vtt")


def _granularities(values: list[str]) -> list[str]:
    for value in values:
        if value not in ("word", "segment"):
            raise ValueError("should be word or segment")
    return values


_GRANULARITIES = Check(_granularities, {"items": {"enum": ["word", "segment"]}})


class OpenAITranscriptionRequest(Section):
    """OpenAI's table without the file; ``prompt``, ``temperature`` and other keys are ignored."""

    model: str
    """A configured recognition service, or one of OpenAI's names."""
    response_format: Annotated[str, one_of(*FORMATS)] = "json"
    """The form of the answer."""
    language: str = ""
    """Repeated in the answer; the service knows its own."""
    timestamp_granularities: Annotated[list[str], _GRANULARITIES] = ["segment"]  # noqa: RUF012
    """For verbose_json; `timestamp_granularities[]` is the same."""
    stream: Annotated[str, one_of("false", "False")] = "false"
    """Only whole answers are given."""


class OpenAITranscriptionForm(OpenAITranscriptionRequest):
    """The same with the recording, in any order."""

    file: RecordingPart


class TaskCreated(Answer):
    """A task that will be done whatever happens."""

    taskId: str  # noqa: N815 - the contract's name
    created: int
    """Unix time."""


class TaskState(Answer):
    """Where a task stands."""

    taskId: str  # noqa: N815 - the contract's name
    status: Literal["waiting", "doing", "success", "failed"]
    created: int
    progress: float
    """0 to 1."""
    attempt: int
    """Counts from 1 once it is begun; a process that dies makes it begin again."""
    errorMsg: str | None = None  # noqa: N815 - the contract's name


class TaskAnswer(TaskState):
    """A task with its result, one line per sentence: ``[m:ss.mmm,m:ss.mmm,speaker] text``."""

    result: str | None = None


class TaskList(Answer):
    """The newest tasks of the key in this project, newest first."""

    tasks: list[TaskState]


class TaskDeleted(Answer):
    """What was asked for is gone, and its recording with it."""

    taskId: str  # noqa: N815 - the contract's name
    deleted: Literal[True] = True


class NonStreamAnswer(Answer):
    """What was said."""

    result: str
    audio_duration: float
    """Seconds."""


class OpenAITranscription(Answer):
    """What was said, in OpenAI's form."""

    text: str


class OpenAIWord(Answer):
    """A word; times in seconds."""

    word: str
    start: float
    end: float


class OpenAISegment(Answer):
    """A sentence; times in seconds. ``channel`` is ours."""

    id: int
    start: float
    end: float
    text: str
    channel: int


class OpenAIVerboseTranscription(Answer):
    """What was said and when; ``language`` is what was asked for."""

    task: Literal["transcribe"] = "transcribe"
    language: str
    duration: float
    text: str
    segments: list[OpenAISegment] | None = None
    words: list[OpenAIWord] | None = None
