"""Out-of-band replies: a few at once, beside that of the turn, which they neither stop nor
hold up.
"""

from tests.session.promises.promise import Promise
from voicechat.session import commands as cmd
from voicechat.session import effects as ef
from voicechat.session import events as ev
from voicechat.session.reply_state import MAX_OUT_OF_BAND
from voicechat.session.states import State


class OutOfBand(Promise):
    corners = ("two replies at once", "an out-of-band reply was spoken")

    def event(self, event: ev.Event, before: State, effects: list[ef.Effect]) -> None:
        asked = isinstance(event, cmd.Respond) and event.overrides.out_of_band
        of_one = isinstance(event, ev.ReplyEvent | ev.ReplyFailed) and self._is_out_of_band(
            event.reply
        )
        if asked or of_one:
            stopped = [e.reply for e in effects if isinstance(e, ef.StopReply)]
            assert all(self._is_out_of_band(reply) for reply in stopped)
            assert self.world.hands_free or self.world.session.state is before

    def _is_out_of_band(self, reply: int) -> bool:
        made = self.world.replies.get(reply)
        return made is not None and made.out_of_band

    def always(self) -> None:
        live = [made for made in self.world.replies.values() if made.begun and made.live]
        assert sum(made.out_of_band for made in live) <= MAX_OUT_OF_BAND
        self.world.reach(
            "two replies at once",
            any(m.out_of_band for m in live) and any(not m.out_of_band for m in live),
        )
        self.world.reach(
            "an out-of-band reply was spoken",
            any(m.out_of_band and m.finished for m in self.world.replies.values()),
        )
