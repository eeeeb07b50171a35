"""What all promises have in common."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from voicechat.session import effects as ef
from voicechat.session import events as ev
from voicechat.session import notices as nt
from voicechat.session.states import State

if TYPE_CHECKING:
    from tests.session.promises.driver import Driver


class Promise:
    """Watches the driver's world. Everything is shown to it before the world takes note
    of it.
    """

    corners: ClassVar[Sequence[str]] = ()
    """What it must have seen, for its silence to mean anything: names given to
    ``Driver.reach``.
    """

    def __init__(self, world: "Driver") -> None:
        self.world = world

    def event(self, event: ev.Event, before: State, effects: list[ef.Effect]) -> None:
        """An event happened while the session was in the state ``before``, with these
        effects.
        """

    def effect(self, effect: ef.Effect) -> None:
        """One of the effects, in their order."""

    def notice(self, notice: nt.Notice) -> None:
        """One of the notices among them."""

    def always(self) -> None:
        """The world is as it is after each step."""


def notices(effects: list[ef.Effect]) -> list[nt.Notice]:
    """What is told among the effects."""
    return [effect.notice for effect in effects if isinstance(effect, ef.Send)]
