"""A reply is made with the settings that hold when it begins and its own overrides,
whatever is set meanwhile.
"""

from typing import Any

from tests.session.promises.promise import Promise
from voicechat.session import commands as cmd
from voicechat.session import effects as ef
from voicechat.session import events as ev
from voicechat.session.states import State
from voicechat.session.types import ReplyOverrides


class Configuring(Promise):
    corners = (
        "configured in a turn",
        "wished otherwise",
        "continued as it began",
        "configured between replies",
    )

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        self._wishes: list[ReplyOverrides] = []

    def event(self, event: ev.Event, before: State, effects: list[ef.Effect]) -> None:
        assert self.world.session.settings == self.world.settings
        if isinstance(event, cmd.Respond):
            self._wishes.append(event.overrides)

    def effect(self, effect: ef.Effect) -> None:
        match effect:
            case ef.StartReply():
                options = [ReplyOverrides(), *self._wishes[-2:]]
                assert any(self._as_wished(effect, overrides) for overrides in options)
                self.world.reach("wished otherwise", not self._as_wished(effect, options[0]))
                earlier = [made.asked.chat for made in self.world.replies.values()]
                self.world.reach(
                    "configured between replies", earlier and earlier[-1] != effect.chat
                )
            case ef.ContinueReply(reply, _, options):
                asked = self.world.replies[reply].asked.chat
                assert {**options, "tool_choice": None} == {**asked.options, "tool_choice": None}
                self.world.reach("continued as it began", asked != self.world.settings.chat)
            case _:
                pass

    def _as_wished(self, asked: ef.StartReply, overrides: ReplyOverrides) -> bool:
        settings = self.world.settings
        chat = settings.chat
        return (
            asked.voiced == (settings.spoken if overrides.spoken is None else overrides.spoken)
            and asked.voice == settings.voice
            and asked.chat.instructions == (overrides.instructions or chat.instructions)
            and asked.chat.options == {**chat.options, **(overrides.options or {})}
            and asked.chat.answers_tools
            == (chat.answers_tools if overrides.answers_tools is None else False)
        )
