"""Recognition: streams live and end in order, and nothing of it is told while a reply
is.
"""

from typing import Any

from tests.session.promises.promise import Promise
from voicechat.session import commands as cmd
from voicechat.session import effects as ef
from voicechat.session import events as ev
from voicechat.session import notices as nt
from voicechat.session.states import TURN, State
from voicechat.session.transcription_state import MAX_REPLACEMENTS


class Recognition(Promise):
    corners = (
        "replay",
        "replaced to the last",
        "refresh skips audio",
        "late stream",
        "a stream is dropped with its mode",
    )

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        self._replaced: dict[int, int] = {}
        """Of a stream whose last result is awaited, the how-manyth it is."""
        self._hands_free = False
        self._committed = False
        """The event is a result of words that were committed."""

    def event(self, event: ev.Event, before: State, effects: list[ef.Effect]) -> None:
        stream = event.stream if isinstance(event, ev.Transcribed) else 0
        self._committed = self.world.streams.get(stream) == "finished"
        if isinstance(event, cmd.Configure):
            hands_free = event.settings.turn_detection is not None
            if hands_free != self._hands_free:
                dropped = {e.stream for e in effects if isinstance(e, ef.DropRecognition)}
                opened = self.world.streams_that_are("open")
                assert set(opened) <= dropped, "how audio reaches a recogniser has changed"
                self.world.reach("a stream is dropped with its mode", opened)
            self._hands_free = hands_free

    def effect(self, effect: ef.Effect) -> None:
        match effect:
            case ef.OpenRecognition(stream, replay_of=old):
                assert stream not in self.world.streams
                self.world.reach("replay", old is not None)
                if old is not None and self.world.streams[old] == "finished":
                    self._replaced[stream] = self._replaced.get(old, 0) + 1
                    assert self._replaced[stream] <= MAX_REPLACEMENTS, (
                        "the last result is not retried for ever"
                    )
                    self.world.reach(
                        "replaced to the last", self._replaced[stream] == MAX_REPLACEMENTS
                    )
            case ef.FinishRecognition(stream):
                assert self.world.streams[stream] == "open"
            case ef.RouteAudio():
                assert effect != self.world.routed, "a route is told when it changes"
            case _:
                pass

    def notice(self, notice: nt.Notice) -> None:
        if isinstance(notice, nt.Recognised):
            speaking = (made for made in self.world.replies.values() if not made.out_of_band)
            assert self._committed or not any(made.told and made.live for made in speaking)

    def always(self) -> None:
        world = self.world
        route = world.routed.route
        assert sum(how != "gone" for how in world.streams.values()) <= 2
        assert (route is ef.Route.DROP) == world.over
        if not world.over and world.settings.half_duplex:
            assert (route is ef.Route.SKIP) >= (world.session.state in TURN)
        if route is ef.Route.RECOGNISE:
            assert world.streams[world.routed.stream] == "open"
            assert not world.hands_free
        if route is ef.Route.LISTEN:
            assert world.hands_free
            assert world.routed.detection == world.settings.turn_detection
        if not world.over:
            assert world.routed.settings == world.settings.input
