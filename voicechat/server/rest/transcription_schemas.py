"""The models of the transcription endpoints' requests and responses."""

from typing import Annotated, Literal

from pydantic import WithJsonSchema

from voicechat.audio.formats import InputContainer, InputFormat
from voicechat.schema.checked import Check, Items, RequestModel, between, one_of
from voicechat.server.rest.schemas import ResponseModel

RecordingPart = Annotated[bytes, WithJsonSchema({"type": "string", "format": "binary"})]
"""A form's file. It is streamed to disk and never part of a model; this only describes
it.
"""


BARE_FORMATS = ("pcm", "mulaw", "alaw", "g722")
"""Formats of samples without a header."""


class RecognitionParam(RequestModel):
    """How to read a recording without a header; a header takes precedence."""

    model: str = ""
    """Ignored."""
    sample_rate: Annotated[int, between(8000, 192_000)] = 16_000
    """Of samples without a header."""
    format: str = ""
    """pcm, mulaw, alaw or g722 for samples without a header; anything else is ignored.
    """

    @property
    def bare(self) -> InputFormat | None:
        """The format of a recording without a header; None: a header is required."""
        if self.format not in BARE_FORMATS:
            return None
        return InputFormat(InputContainer(self.format), self.sample_rate)


class TranscriptionRequest(RequestModel):
    """A task to be made; the same as the field ``data`` of a form, where ``audio_url``
    is not needed.
    """

    easyllm_id: str
    """A configured recognition service."""
    audio_url: str = ""
    """The URL of the recording: http or https, a public address."""
    speech_recognition_param: RecognitionParam = RecognitionParam()


class TranscriptionForm(RequestModel):
    """A task and its recording, in any order."""

    data: TranscriptionRequest
    audio_file: RecordingPart


class NonStreamRequest(TranscriptionRequest):
    """A recording to be recognised at once."""


class NonStreamForm(RequestModel):
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


class OpenAITranscriptionRequest(RequestModel):
    """OpenAI's table without the file; ``prompt``, ``temperature`` and other keys are
    ignored.
    """

    model: str
    """A configured recognition service, or one of OpenAI's names."""
    response_format: Annotated[str, one_of(*FORMATS)] = "json"
    """The form of the answer."""
    language: str = ""
    """Repeated in the answer; the service knows its own."""
    timestamp_granularities: Annotated[list[str], Items(0, 16, "granularities"), _GRANULARITIES] = [  # noqa: RUF012
        "segment"
    ]
    """For verbose_json; `timestamp_granularities[]` is the same."""
    stream: Annotated[str, one_of("false", "true", "False", "True")] = "false"
    """Whether json and text are answered by events, a sentence each."""

    @property
    def streams(self) -> bool:
        """Whether the response is events. Only json and text can be; other formats are
        sent whole.
        """
        return self.stream.lower() == "true" and self.response_format in ("json", "text")


class OpenAITranscriptionForm(OpenAITranscriptionRequest):
    """The same with the recording, in any order."""

    file: RecordingPart


class TaskCreated(ResponseModel):
    """A task that will be done whatever happens. Its id comes under both of the
    contract's names.
    """

    taskId: str  # noqa: N815 - the contract's name
    task_id: str
    created: int
    """Unix time."""


class TaskState(ResponseModel):
    """The state of a task."""

    taskId: str  # noqa: N815 - the contract's name
    task_id: str
    status: Literal["waiting", "doing", "success", "failed"]
    created: int
    progress: float
    """0 to 1."""
    attempt: int
    """Counts from 1 once it is begun; a process that dies makes it begin again."""
    errorMsg: str | None = None  # noqa: N815 - the contract's name


class TaskAnswer(TaskState):
    """A task with its result, one line per sentence: ``[m:ss.mmm,m:ss.mmm,speaker]
    text``.
    """

    result: str | None = None


class TaskList(ResponseModel):
    """The newest tasks of the key in this project, newest first."""

    tasks: list[TaskState]


class TaskDeleted(ResponseModel):
    """The task is deleted, and its recording with it."""

    taskId: str  # noqa: N815 - the contract's name
    task_id: str
    deleted: Literal[True] = True


class NonStreamAnswer(ResponseModel):
    """The transcript."""

    result: str
    audio_duration: float
    """Seconds."""


class OpenAITranscription(ResponseModel):
    """The transcript, in OpenAI's form."""

    text: str


class OpenAIWord(ResponseModel):
    """A word; times in seconds."""

    word: str
    start: float
    end: float


class OpenAISegment(ResponseModel):
    """A sentence; times in seconds.

    What only one kind of recogniser knows has a neutral value: clients' models demand
    these keys.
    """

    id: int
    seek: int = 0
    start: float
    end: float
    text: str
    tokens: list[int] = []  # noqa: RUF012 - pydantic copies it
    temperature: float = 0.0
    avg_logprob: float = 0.0
    compression_ratio: float = 1.0
    no_speech_prob: float = 0.0


class OpenAIDuration(ResponseModel):
    """The measure of a transcription: its duration."""

    type: Literal["duration"] = "duration"
    seconds: float


class OpenAIVerboseTranscription(ResponseModel):
    """The transcript with times.

    ``language`` is the requested one, by its English name, or ``unknown``.
    """

    task: Literal["transcribe"] = "transcribe"
    language: str
    duration: float
    text: str
    segments: list[OpenAISegment] | None = None
    words: list[OpenAIWord] | None = None
    usage: OpenAIDuration


class OpenAITranscriptDelta(ResponseModel):
    """An event: a sentence more, with the blank before it."""

    type: Literal["transcript.text.delta"] = "transcript.text.delta"
    delta: str


class OpenAITranscriptDone(ResponseModel):
    """The last event: the whole text."""

    type: Literal["transcript.text.done"] = "transcript.text.done"
    text: str
    usage: OpenAIDuration
