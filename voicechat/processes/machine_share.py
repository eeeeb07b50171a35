"""How machine-wide resources, such as model processes, are divided among the server's
workers.

Each worker (`voicechat.server.workers`) opens every provider. A provider that starts
processes for the whole machine starts only its worker's share, so that the total is the
same as with one worker. A process with a large model is shared: see `shared_children`.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class MachineShare:
    """The share of worker ``number`` (from 0) of ``processes`` workers."""

    number: int = 0
    processes: int = 1
    host: Path | None = None
    """The socket of the `ChildHost` that runs one child for all workers; None: there is
    none.
    """

    def part_of(self, total: int) -> int:
        """This worker's part of ``total``. The parts of all workers add up to
        ``total``.
        """
        return total // self.processes + (self.number < total % self.processes)


_share = MachineShare()


def set_machine_share(number: int, processes: int, host: Path | None = None) -> None:
    """Set this process's share, once, at its start."""
    global _share
    _share = MachineShare(number, processes, host)


def machine_share() -> MachineShare:
    """This process's share: everything unless `set_machine_share` was called."""
    return _share
