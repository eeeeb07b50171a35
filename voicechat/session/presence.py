"""Whether the client is still there, and still makes sense."""

from voicechat.session import events as ev

FROM_CLIENT = (
    ev.Opened,
    ev.AudioReceived,
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
)
"""Everything that a client's messages become, and the pong of its WebSocket."""


class Presence:
    """When the client was heard from last, and how many of its messages in a row were malformed."""

    def __init__(self, *, strict_ping: bool) -> None:
        """``strict_ping``: only ``ping`` shows that the client is there."""
        self._strict_ping = strict_ping
        self.last_message_ms = 0
        self.errors_in_a_row = 0

    def note(self, event: ev.Event, now_ms: int) -> None:
        """Take note of an event, if it came from the client."""
        if not isinstance(event, FROM_CLIENT):
            return
        if not self._strict_ping or isinstance(event, ev.PingReceived):
            self.last_message_ms = now_ms
        if isinstance(event, ev.MalformedReceived):
            self.errors_in_a_row += 1
        elif not isinstance(event, ev.PongReceived):
            self.errors_in_a_row = 0
