"""Whether the client is still there, still speaks, and still makes sense."""

from voicechat.session import events as ev
from voicechat.session.limits import SessionLimits

FROM_CLIENT = frozenset(
    {
        ev.Opened,
        ev.AudioStarted,
        ev.AudioArrived,
        ev.UpdateRequested,
        ev.CompleteRequested,
        ev.ClearRequested,
        ev.ForgetRequested,
        ev.CancelRequested,
        ev.MessageCreated,
        ev.ToolAnswered,
        ev.PlaybackReported,
        ev.PingReceived,
        ev.PongReceived,
        ev.MalformedReceived,
        ev.IgnorableReceived,
        ev.FinishRequested,
    }
)
"""Everything that a client's messages become, and the pong of its WebSocket."""


class Presence:
    """When the client was heard from last, when it last spoke, and how many messages in a row were malformed."""

    def __init__(self, limits: SessionLimits, *, strict_ping: bool = False) -> None:
        """``strict_ping``: only ``ping`` shows that the client is there."""
        self._limits = limits
        self._strict_ping = strict_ping
        self._last_message_ms = 0
        self._said_something = False
        self._last_speech_ms = 0
        self._errors_in_a_row = 0

    def note(self, event: ev.Event, now_ms: int) -> None:
        """Take note of an event, if it came from the client."""
        if type(event) not in FROM_CLIENT:
            return
        # A WebSocket answers pings whether or not anybody is behind it: pongs count once the client has said something.
        if isinstance(event, ev.PongReceived):
            counts = self._said_something
        else:
            counts = True
            self._said_something |= not isinstance(event, ev.Opened)
        if counts and (not self._strict_ping or isinstance(event, ev.PingReceived)):
            at_ms = event.at_ms if isinstance(event, ev.AudioArrived) else now_ms
            self._last_message_ms = max(self._last_message_ms, at_ms)
        if isinstance(event, ev.MalformedReceived):
            self._errors_in_a_row += 1
        elif not isinstance(event, ev.PongReceived):
            self._errors_in_a_row = 0

    def spoke(self, now_ms: int) -> None:
        """The user was heard to speak, or only now may be expected to."""
        self._last_speech_ms = now_ms

    @property
    def senseless(self) -> bool:
        """Whether so many messages in a row were malformed that there is no use in listening on."""
        return self._errors_in_a_row >= self._limits.protocol_errors

    def deadline_ms(self, *, must_speak: bool, heard_ms: int = 0) -> int:
        """When ``absent`` is due. ``must_speak``: it is the user's turn, and messages alone do not keep it alive.

        ``heard_ms`` is when the last reply has been played to its end: before it the user is not expected to speak.
        """
        silent_ms = self._last_message_ms + self._limits.idle_ms
        return min(silent_ms, self._speech_due_ms(heard_ms)) if must_speak else silent_ms

    def absent(self, now_ms: int, *, must_speak: bool, heard_ms: int = 0) -> str:
        """Why the client counts as gone; empty while it does not. See ``deadline_ms``."""
        limits = self._limits
        if now_ms >= self._last_message_ms + limits.idle_ms:
            return f"no message for {limits.idle_ms // 1000} s"
        if must_speak and now_ms >= self._speech_due_ms(heard_ms):
            return f"no speech for {limits.speech_idle_ms // 1000} s"
        return ""

    def _speech_due_ms(self, heard_ms: int) -> int:
        return max(self._last_speech_ms, heard_ms) + self._limits.speech_idle_ms
