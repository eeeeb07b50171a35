"""Replies apart: a few at once, beside that of the turn, which they neither stop nor
hold up.
"""

from tests.session.promises.promise import Promise
from voicechat.session import commands as cmd
from voicechat.session import effects as ef
from voicechat.session import events as ev
from voicechat.session.speaking import MOST_APART
from voicechat.session.states import State


class Apart(Promise):
    corners = ("two replies at once", "a reply apart was spoken")

    def event(self, event: ev.Event, before: State, effects: list[ef.Effect]) -> None:
        asked = isinstance(event, cmd.Respond) and event.wishes.apart
        of_one = isinstance(event, ev.ReplyEvent | ev.ReplyFailed) and self._is_apart(event.reply)
        if asked or of_one:
            stopped = [e.reply for e in effects if isinstance(e, ef.StopReply)]
            assert all(self._is_apart(reply) for reply in stopped)
            assert self.world.hands_free or self.world.session.state is before

    def _is_apart(self, reply: int) -> bool:
        made = self.world.replies.get(reply)
        return made is not None and made.apart

    def always(self) -> None:
        live = [made for made in self.world.replies.values() if made.begun and made.live]
        assert sum(made.apart for made in live) <= MOST_APART
        self.world.reach(
            "two replies at once", any(m.apart for m in live) and any(not m.apart for m in live)
        )
        self.world.reach(
            "a reply apart was spoken",
            any(m.apart and m.finished for m in self.world.replies.values()),
        )
