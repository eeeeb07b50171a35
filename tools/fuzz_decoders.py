"""Fuzzes the decoders with mutated real streams: ``python -m
tools.fuzz_decoders --inputs 20000``.

Each input goes to a decoding process of its own, as a client's audio does. Whatever
comes, the answer must be audio or a refusal, within a second; the process that serves
them must not grow. What ends a decoding process is reported with its seed, which makes
the same input again, and can be kept in ``fuzz_decoders.txt``.
"""

import argparse
import asyncio
import os
import random
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.formats.material import NAMES, container_of, encoded
from voicechat.errors import RemoteProtocolError
from voicechat.processes.errors import WorkerLostError
from voicechat.processes.forked import ForkServer
from voicechat.processes.frames import FrameKind
from voicechat.runtime.decoding import check, decode_stream, open_decoding

MAX_INPUT_S = 1.0
MAX_GROWTH_BYTES = 32 << 20
AT_ONCE = 4
HURTFUL = Path(__file__).with_suffix(".txt")
"""Seeds of inputs that once caused a crash or a hang, one per line: ``<name>
<seed>  <what it did>``.
"""


@dataclass
class Findings:
    """What became of the inputs."""

    outcomes: Counter[str] = field(default_factory=Counter)
    slow: list[tuple[str, int, float]] = field(default_factory=list)
    ended: list[tuple[str, int]] = field(default_factory=list)
    """A decoder died of these: no harm to the others, and a bug of the codec."""
    growth_bytes: int = 0

    @property
    def sound(self) -> bool:
        """Whether every input was answered in time and the server kept its size."""
        return not self.slow and self.growth_bytes <= MAX_GROWTH_BYTES


def mutated(name: str, seed: int) -> bytes:
    """Damage a real stream: bits, bytes, lengths, pieces left out, doubled, exchanged,
    or of another stream.
    """
    chance = random.Random(f"{name} {seed}")
    stream = bytearray(encoded(name)[: chance.choice((2000, 5000, 30_000))])
    for _ in range(chance.choice((1, 1, 2, 5, 20))):
        at, size = chance.randrange(len(stream)), chance.choice((1, 2, 4, 30, 300))
        match chance.randrange(8):
            case 0:
                stream[at] ^= 1 << chance.randrange(8)
            case 1:
                stream[at : at + size] = chance.randbytes(size)
            case 2:
                stream[at : at + size] = bytes([chance.choice((0, 0x7F, 0x80, 0xFF))]) * size
            case 3:
                del stream[at : at + size]
            case 4:
                stream[at:at] = stream[at : at + size]
            case 5:
                other = encoded(chance.choice(NAMES))
                start = chance.randrange(len(other))
                stream[at:at] = other[start : start + size]
            case 6:
                # Headers stand at the beginning: most of the damage is to be there.
                stream[at % 100 : at % 100 + 1] = chance.randbytes(1)
            case _:
                del stream[max(at, 1) :]
        if not stream:
            return b"\0"
    return bytes(stream)


async def try_one(server: ForkServer, name: str, seed: int) -> tuple[str, float]:
    """Decode one input; give what became of it and how long it took."""
    data, loop = mutated(name, seed), asyncio.get_running_loop()
    chance = random.Random(seed)
    stream = await decode_stream(server, container_of(name))
    began_s = loop.time()
    try:
        due, at = 1, 0
        while at < len(data):
            size = chance.randint(1, 5000)
            stream.send(data[at : at + size])
            due, at = due + 1, at + size
        stream.finish_input()
        decoded_bytes = 0
        while due:
            answer = await stream.receive_frame()
            check(answer)
            decoded_bytes += len(answer.payload) if answer.kind is FrameKind.MESSAGE else 0
            due -= answer.kind is not FrameKind.MESSAGE
        outcome = "heard" if decoded_bytes else "silent"
    except RemoteProtocolError as error:
        outcome = error.status.name.lower()
    except WorkerLostError:
        outcome = "lost"
    finally:
        stream.close()
    return outcome, loop.time() - began_s


async def fuzz(
    names_and_seeds: list[tuple[str, int]], *, max_input_s: float = MAX_INPUT_S
) -> Findings:
    """Try inputs, a few at once."""
    server, findings = open_decoding(), Findings()
    await server.start()
    waiting = list(reversed(names_and_seeds))
    size_before_bytes = 0

    async def work() -> None:
        nonlocal size_before_bytes
        while waiting:
            name, seed = waiting.pop()
            outcome, took_s = await try_one(server, name, seed)
            findings.outcomes[outcome] += 1
            if took_s > max_input_s:
                findings.slow.append((name, seed, took_s))
            if outcome == "lost":
                findings.ended.append((name, seed))
            if sum(findings.outcomes.values()) == min(200, len(names_and_seeds) // 2):
                size_before_bytes = own_bytes()

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(work())
    finally:
        await server.aclose()
    findings.growth_bytes = own_bytes() - size_before_bytes
    return findings


def hurtful() -> list[tuple[str, int]]:
    """The inputs that are kept."""
    lines = (
        line.split() for line in HURTFUL.read_text("utf-8").splitlines() if line and line[0] != "#"
    )
    return [(name, int(seed)) for name, seed, *_ in lines]


def own_bytes() -> int:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description="feed damaged audio to the decoders")
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--first-seed", type=int, default=0)
    options = parser.parse_args()
    seeds = range(options.first_seed, options.first_seed + options.inputs)
    findings = asyncio.run(fuzz([(NAMES[seed % len(NAMES)], seed) for seed in seeds]))
    print(
        f"{options.inputs} inputs:",
        ", ".join(f"{count} {what}" for what, count in findings.outcomes.most_common()),
    )
    print(f"this process grew by {findings.growth_bytes / 1e6:.1f} MB")
    for name, seed, took_s in findings.slow:
        print(f"slow: {name} {seed}  {took_s:.1f} s")
    for name, seed in findings.ended:
        print(f"a decoder died of: {name} {seed}")
    return 0 if findings.sound else 1


if __name__ == "__main__":
    sys.exit(main())
