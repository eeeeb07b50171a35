"""What the listener still hears of the last reply, and what the history keeps of it."""

from voicechat.session.commands import TruncateReply
from voicechat.session.effects import Effect, Send, StopReply
from voicechat.session.notices import Rejected, ReplyCut, Why
from voicechat.session.reply import Reply
from voicechat.session.reply_registry import ReplyRegistry


class ReplyPlayback:
    """The playback of the last reply. A reply stays here after its turn has ended."""

    def __init__(self, registry: ReplyRegistry) -> None:
        self._registry = registry
        self.playing: Reply | None = None
        """The reply whose audio the listener may still be hearing."""

    def is_playing(self, number: int) -> bool:
        """Whether the listener may be hearing the reply of that number."""
        playing = self.playing is not None and self.playing.number == number
        return playing or number in self._registry.out_of_band

    def stop(self, now_ms: int) -> list[Effect]:
        """Stop the playback of a completed reply. The history keeps the part that was
        heard.
        """
        playing, self.playing = self.playing, None
        if playing is None or not playing.audible(now_ms):
            return []
        heard = "" if playing.is_fallback else playing.heard_text(now_ms)
        items = self._registry.truncate(playing, heard)
        return [StopReply(playing.number), Send(ReplyCut(playing.number, heard, items))]

    def truncate_reply(self, command: TruncateReply) -> ReplyCut | Rejected:
        """Reduce a reply in the history to what was heard by ``heard_ms`` of its audio,
        or reject that.
        """
        reply = self._registry.recent.get(command.reply)
        if reply is None or not reply.voiced or not self._registry.history.ids_of(reply.number):
            return Rejected(command.cause, Why.NO_REPLY, Why.NO_REPLY.value)
        if command.heard_ms > reply.made_ms:
            message = f"it is {reply.made_ms} ms long, not {command.heard_ms}"
            return Rejected(command.cause, Why.TOO_LONG, message)
        reply.stop_playback()
        heard = reply.heard_text_until(command.heard_ms)
        items = self._registry.truncate(reply, heard)
        return ReplyCut(reply.number, heard, items)

    def audible(self, now_ms: int) -> bool:
        """Whether the listener is still hearing the last reply."""
        return self.playing is not None and self.playing.audible(now_ms)

    @property
    def heard_ms(self) -> int | None:
        """When the last reply has been, or will have been, heard, by the clock; None:
        not all of it was sent; 0: there is none.
        """
        return self.playing.silent_at_ms if self.playing is not None else 0

    def silent_at_ms(self, now_ms: int) -> int | None:
        """Return when the last reply will have been heard, by the clock; None: it has
        been heard, or not all of it was sent.
        """
        playing = self.playing
        return playing.silent_at_ms if playing is not None and playing.audible(now_ms) else None
