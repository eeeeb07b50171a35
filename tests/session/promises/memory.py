"""The history is what was told and asked for, in that order, and the model reads
exactly it.
"""

from typing import Any

from tests.session.promises.promise import Promise, notices
from voicechat.session import commands as cmd
from voicechat.session import effects as ef
from voicechat.session import events as ev
from voicechat.session import notices as nt
from voicechat.session.states import State
from voicechat.session.types import Item, Message


def bare(text: object) -> str:
    """Without white space: where a reply's text stands around tools, its ends are
    trimmed.
    """
    return "".join(str(text or "").split())


class Memory(Promise):
    corners = (
        "memory",
        "item added in front",
        "item deleted",
        "heard less",
        "truncated",
        "forgotten in a reply",
        "tools remembered",
        "reads only its input",
        "words during a reply are remembered",
    )

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        self._items: list[Item] = []
        self._awaited: list[str] = []
        """The places of turns whose words are to come."""
        self._began_after: dict[int, str] = {}
        self._question = ""
        """The item of the turn in progress."""
        self._forgotten = False
        """The turn in progress is not remembered."""
        self._replying = False

    def event(self, event: ev.Event, before: State, effects: list[ef.Effect]) -> None:
        done = any(isinstance(notice, nt.Done) for notice in notices(effects))
        self._replying = before is State.REPLYING
        match event:
            case cmd.AddItem() if done:
                assert event.id not in self._ids
                self._insert([Item(event.id, event.message)], event.after)
                self.world.reach("item added in front", event.after == "" and len(self._items) > 1)
            case cmd.DeleteItem() if done:
                assert event.id in self._ids
                said = [item.id for item in self._items if item.message or item.id == event.id]
                earlier = ["", *said][said.index(event.id)]
                self._began_after = {
                    reply: earlier if after == event.id else after
                    for reply, after in self._began_after.items()
                }
                self._items = [item for item in self._items if item.id != event.id]
                self.world.reach("item deleted")
            case cmd.DeleteItem():
                assert event.id not in self._ids
            case cmd.ClearHistory():
                kept = self._question if self._replying else ""
                self._items = [item for item in self._items if item.id == kept or not item.message]
                self._forgotten = before in (State.REPLYING, State.TRANSCRIBING)
                self.world.reach("forgotten in a reply", self._replying)
            case cmd.TruncateReply():
                self.world.reach("truncated", done)
            case _:
                pass

    def effect(self, effect: ef.Effect) -> None:
        match effect:
            case ef.StartReply(messages=messages, preemptive=preemptive):
                self._check_request(effect, messages[: len(messages) - preemptive])
                assert not preemptive or messages[-1]["role"] == "user"
            case ef.ContinueReply(reply, messages):
                made = self.world.replies[reply]
                said = next((n for n, m in enumerate(messages) if m.get("tool_calls")), None)
                assert said is not None
                last = [m for m in messages[said:] if m["role"] == "tool"]
                assert len(last) >= len(made.calls)
            case _:
                pass

    def _check_request(self, asked: ef.StartReply, messages: tuple[Message, ...]) -> None:
        system = (
            ({"role": "system", "content": asked.chat.instructions},)
            if asked.chat.instructions
            else ()
        )
        remembered = tuple(item.message for item in self._items if item.message)
        if messages == (*system, *remembered):
            self.world.reach("memory", any(m["role"] == "assistant" for m in messages))
            self.world.reach("tools remembered", any(m["role"] == "tool" for m in messages))
        else:
            assert [m["content"] for m in messages[len(system) :]] == ["Only this."]
            self.world.reach("reads only its input")

    def notice(self, notice: nt.Notice) -> None:
        match notice:
            case nt.TurnCommitted(item_id=reserved):
                assert reserved not in self._ids
                self._items.append(Item(reserved, {}))
                self._awaited.append(reserved)
            case nt.NothingSaid(given_up):
                self._awaited.remove(given_up)
                self._items = [item for item in self._items if item.id != given_up]
            case nt.UserSaid(item):
                self._awaited.remove(item.id)
                place = self._ids.index(item.id)
                assert not self._items[place].message, "the words get the place of their turn"
                self._items[place] = item
                self.world.reach("words during a reply are remembered", self._replying)
                if not self._replying:
                    self._question = item.id
            case nt.ReplyBegun(reply) if not self.world.replies[reply].out_of_band:
                said = [item.id for item in self._items if item.message]
                self._began_after[reply] = said[-1] if said else ""
            case nt.ReplyEnded(reply, _, items) if self.world.replies[reply].out_of_band:
                assert not items, "nothing of an out-of-band reply is remembered"
            case nt.ReplyEnded(reply, outcome, items):
                assert not (items and self._forgotten)
                after: str | None = self._began_after[reply]
                self._insert(list(items), after if after in ("", *self._ids) else None)
                self._check_said(
                    reply, items, whole=outcome is nt.Outcome.SPOKEN and not self._forgotten
                )
            case nt.ReplyCut(reply, heard, items):
                self._check_said(reply, items, whole=False)
                assert not items or bare(heard) == said_in(items)
                self._replace(reply, items)
                self.world.reach(
                    "heard less", len(bare(heard)) < len(bare(self.world.replies[reply].text))
                )
            case nt.TurnCompleted():
                if self._forgotten:
                    self._items = [item for item in self._items if item.id != self._question]
                self._forgotten, self._question = False, ""
                self._replying = False  # a key may begin the next turn in the same event
            case _:
                pass

    def _check_said(self, reply: int, items: tuple[Item, ...], *, whole: bool) -> None:
        """Of a reply, at most what was said; of one that is still to send its first
        audio, nothing.
        """
        made = self.world.replies[reply]
        words = said_in(items)
        assert bare(made.text).startswith(words)
        assert (
            not words
            or made.finished
            or made.left_ms
            or made.rounds
            or not made.asked.voiced
            or not made.live
        )
        if (whole and made.sentences != []) or (whole and not made.asked.voiced):
            assert words == bare(made.text), "a reply that was spoken is remembered whole"

    def _replace(self, reply: int, items: tuple[Item, ...]) -> None:
        old = [place for place, item in enumerate(self._items) if item.reply == reply]
        if not old:
            return
        said = [item.id for item in self._items[: old[0]] if item.message]
        stands = [item.id for item in items] or said
        gone = {self._items[place].id for place in old} - {item.id for item in items}
        self._began_after = {
            number: (stands[-1] if stands else "") if after in gone else after
            for number, after in self._began_after.items()
        }
        self._items[old[0] : old[-1] + 1] = items

    def _insert(self, items: list[Item], after: str | None) -> None:
        place = len(self._items) if after is None else self._ids.index(after) + 1 if after else 0
        self._items[place:place] = items

    @property
    def _ids(self) -> list[str]:
        return [item.id for item in self._items]

    def always(self) -> None:
        if not self.world.over:
            assert len(set(self._ids)) == len(self._ids)
            assert list(self.world.session._core.replies.history.items) == self._items


def said_in(items: tuple[Item, ...]) -> str:
    """What the assistant said in these, without white space."""
    return "".join(
        bare(item.message["content"]) for item in items if item.message["role"] == "assistant"
    )
