"""What can happen to a session, in the past tense. Everything the kernel ever learns arrives as one of these."""

from dataclasses import dataclass
from typing import TypeAlias

from voicechat.errors import Status
from voicechat.session.vocabulary import Settings, ToolCall, ToolExchange, Transcript

# --- from the client, decoded by a dialect ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Opened:
    """The connection is established and admitted."""


@dataclass(frozen=True, slots=True)
class AudioReceived:
    """One frame of audio, as it came. The runtime's audio input takes it: no machine is given one."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class AudioStarted:
    """Audio comes while the route is ``AWAIT``: it goes where the effects of this event say."""


@dataclass(frozen=True, slots=True)
class AudioArrived:
    """Audio has come since the last event, the newest at ``at_ms``: the client is there.

    Told before anything else that the client does, and before a deadline is looked at.
    """

    at_ms: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request cannot be granted, as the client is told."""

    status: Status
    message: str


@dataclass(frozen=True, slots=True)
class UpdateRequested:
    """``chat.update``: new settings, or why they are not acceptable."""

    settings: Settings | Refusal
    note: str = ""
    """Said in the answer although the update is granted: a voice was mapped to another."""


@dataclass(frozen=True, slots=True)
class CompleteRequested:
    """``input_audio_buffer.complete``: the user has finished, answer."""


@dataclass(frozen=True, slots=True)
class ClearRequested:
    """``input_audio_buffer.clear``: forget the audio and text gathered for the next turn."""


@dataclass(frozen=True, slots=True)
class ForgetRequested:
    """``conversation.clear``: forget the conversation, keep the configured messages."""


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """``conversation.chat.cancel``: stop the reply at once."""


@dataclass(frozen=True, slots=True)
class MessageCreated:
    """``conversation.message.create``: a typed user turn."""

    content: str


@dataclass(frozen=True, slots=True)
class ToolAnswered:
    """``conversation.message.create`` with role ``tool``: the client carried out the call ``call_id``."""

    call_id: str
    content: str


@dataclass(frozen=True, slots=True)
class PlaybackReported:
    """``conversation.audio.played``: how much of a reply the client has played."""

    reply: int
    played_ms: int


@dataclass(frozen=True, slots=True)
class PingReceived:
    """``ping``: the client's heartbeat event."""


@dataclass(frozen=True, slots=True)
class PongReceived:
    """A WebSocket pong: the peer is alive."""


@dataclass(frozen=True, slots=True)
class MalformedReceived:
    """A frame that is no event of the dialect; answered with ``error``."""

    status: Status
    message: str


@dataclass(frozen=True, slots=True)
class IgnorableReceived:
    """A frame that the dialect ignores; it still shows that the peer is alive."""


@dataclass(frozen=True, slots=True)
class FinishRequested:
    """``BYE`` of stream-speech: send the last result, then close."""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The socket is gone: nothing can be sent any more."""


# --- from the ears (recognition) ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Transcribed:
    """The recogniser of ``stream`` understood something; times are on the connection's time line."""

    stream: int
    transcript: Transcript


@dataclass(frozen=True, slots=True)
class RecognitionEnded:
    """The recogniser of ``stream`` has said everything."""

    stream: int


@dataclass(frozen=True, slots=True)
class RecognitionFailed:
    """``stream`` will give no more results."""

    stream: int
    status: Status
    message: str
    retryable: bool = False
    """True: the same audio may succeed on a new stream."""
    others_left: bool = False
    """True: a new stream is heard by a recogniser that has not failed on this audio."""


@dataclass(frozen=True, slots=True)
class RecognitionDelayed:
    """The recogniser of ``stream`` may take ``by_ms`` longer to its last result: it may have to load its model."""

    stream: int
    by_ms: int


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """Hands-free: the user has begun to speak at ``at_ms`` of the connection's audio, ``ago_ms`` before its end."""

    at_ms: int
    ago_ms: int


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """Hands-free: the user has fallen silent at ``at_ms`` of the connection's audio, ``ago_ms`` before its end."""

    at_ms: int
    ago_ms: int


@dataclass(frozen=True, slots=True)
class TurnJudged:
    """Hands-free: by its sound, the turn is complete with ``probability``, 0 to 1, if nothing follows the last stop."""

    probability: float


# --- from the turn (model and synthesiser) -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReplyTextArrived:
    """The chat model said the next piece of its reply."""

    reply: int
    text: str


@dataclass(frozen=True, slots=True)
class ToolCalled:
    """The chat model said the next piece of a tool call."""

    reply: int
    call: ToolCall


@dataclass(frozen=True, slots=True)
class ToolsUsed:
    """The chat model had tools carried out on the server; the reply goes on."""

    reply: int
    exchange: ToolExchange


@dataclass(frozen=True, slots=True)
class ReplyTextEnded:
    """The chat model has finished."""

    reply: int
    finish_reason: str = "stop"


@dataclass(frozen=True, slots=True)
class SpeechSynthesized:
    """The next encoded piece of the reply's audio, in order over the whole reply.

    ``payload`` may be empty while an encoder still holds samples back. ``end_ms`` is the media position after it:
    milliseconds of speech since the start of the reply.
    """

    reply: int
    sentence: int
    payload: bytes
    end_ms: int


@dataclass(frozen=True, slots=True)
class SentenceSynthesized:
    """All audio of ``sentence`` has been made."""

    reply: int
    sentence: int


@dataclass(frozen=True, slots=True)
class SpeechEnded:
    """All audio of the reply has been made, the encoder's tail included."""

    reply: int


@dataclass(frozen=True, slots=True)
class ReplyFailed:
    """The model or the synthesiser failed; nothing more of the reply will come."""

    reply: int
    status: Status
    message: str


# --- from the transport, the server and the clock ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AudioSent:
    """Audio of the reply up to ``end_ms`` has been handed to the socket."""

    reply: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class WriteStalled:
    """The client does not read: its backlog or its patience is exhausted."""

    message: str


@dataclass(frozen=True, slots=True)
class DrainRequested:
    """The server stops: finish the turn in progress until ``deadline_ms`` (session time), then close."""

    deadline_ms: int


@dataclass(frozen=True, slots=True)
class PressureChanged:
    """Whether the server is ``short`` of time: then nothing is begun that may be in vain. At first it is not."""

    short: bool


@dataclass(frozen=True, slots=True)
class AccessEnded:
    """The client may no longer be served: its key was revoked, or its quota is used up."""

    status: Status
    message: str


@dataclass(frozen=True, slots=True)
class Faulted:
    """Our own code failed in a task of this session: a bug. The session ends, the server goes on."""


@dataclass(frozen=True, slots=True)
class Ticked:
    """The deadline that the session asked for has come."""


Requested: TypeAlias = (
    Opened | UpdateRequested | CompleteRequested | ClearRequested | ForgetRequested | CancelRequested | PingReceived
)
"""What the client is answered, whether it is granted or not."""

Ended: TypeAlias = Disconnected | WriteStalled | AccessEnded | Faulted | DrainRequested
"""What ends a session, at once or as soon as its turn is over."""

Event: TypeAlias = (
    Opened
    | AudioStarted
    | AudioArrived
    | UpdateRequested
    | CompleteRequested
    | ClearRequested
    | ForgetRequested
    | CancelRequested
    | MessageCreated
    | ToolAnswered
    | PlaybackReported
    | PingReceived
    | PongReceived
    | MalformedReceived
    | IgnorableReceived
    | FinishRequested
    | Disconnected
    | Transcribed
    | RecognitionEnded
    | RecognitionFailed
    | RecognitionDelayed
    | SpeechStarted
    | SpeechStopped
    | TurnJudged
    | ReplyTextArrived
    | ToolCalled
    | ToolsUsed
    | ReplyTextEnded
    | SpeechSynthesized
    | SentenceSynthesized
    | SpeechEnded
    | ReplyFailed
    | AudioSent
    | WriteStalled
    | DrainRequested
    | PressureChanged
    | AccessEnded
    | Faulted
    | Ticked
)

Decoded: TypeAlias = Event | AudioReceived
"""What a client's frame becomes."""
