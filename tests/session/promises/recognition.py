"""Recognition: streams live and end in order, and nothing of it is told while a reply
is.
"""

from typing import Any

from tests.session.promises.promise import Promise
from voicechat.session import effects as ef
from voicechat.session import notices as nt
from voicechat.session.hearing import MAX_REPLACEMENTS
from voicechat.session.states import TURN


class Recognition(Promise):
    corners = ("replay", "replaced to the last", "refresh skips audio", "late stream")

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        self._replaced: dict[int, int] = {}
        """Of a stream whose last result is awaited, the how-manyth it is."""

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
            speaking = (made for made in self.world.replies.values() if not made.apart)
            assert not any(made.told and made.live for made in speaking)

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
