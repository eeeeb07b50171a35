"""This process' share of what there is to be one of on a machine, though several
processes serve: model processes.

With workers (`voicechat.server.workers`) each of them opens every provider. What a
provider would start for the machine is divided here: so many processes hold the models
as with one worker.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Share:
    """Process ``number``, from 0, of ``processes`` that serve."""

    number: int = 0
    processes: int = 1

    def of(self, total: int) -> int:
        """How many of ``total`` are this process'; over all processes they add up to
        it.
        """
        return total // self.processes + (self.number < total % self.processes)


_share = Share()


def take_share(number: int, processes: int) -> None:
    """Say once, at the start, which process this is."""
    global _share
    _share = Share(number, processes)


def share() -> Share:
    """This process' share; the whole unless said otherwise."""
    return _share
