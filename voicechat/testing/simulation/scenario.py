"""What happens in a simulation, as data: who visits, what is said, what goes wrong.

Everything is decided before a run begins, so that a part can be left out and the rest
stays as it is. That is how a failing scenario is made small.
"""

from dataclasses import dataclass, replace
from random import Random

from voicechat.testing.simulation.network import LinkQuality

FIRST_HEAD, LAST_HEAD = 1, 20_000
"""The first word of an utterance: no other utterance of the scenario begins with it."""
_TRANSPORT_STREAM = 0x47
"""No head has this low byte, of which its samples would consist: they would pass for an
MPEG transport stream.
"""
FIRST_WORD, LAST_WORD = 20_001, 32_000
"""Its other words."""

CLIENTS = ("speech-chat",)
"""The kinds of clients."""


@dataclass(frozen=True, slots=True)
class Mishap:
    """Something that a client does, or that happens to it, in the middle of a turn."""

    kind: str
    """``cancel``, ``cut``, ``vanish``, ``stop reading``, ``leave``, ``clear``,
    ``forget``, ``talk over``, ``ping``, ``garbage``, ``played``, ``complete again``.
    """
    after_s: float
    """When, counted from the end of what the user says; negative: while the user
    speaks.
    """
    for_s: float = 0.0
    """How long it lasts."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a client."""

    head: int
    """The number of the utterance's first word."""
    words: tuple[int, ...]
    """All its words; the first is ``head``."""
    pause_s: float
    """The silence before it."""
    typed: bool = False
    mishaps: tuple[Mishap, ...] = ()
    recognizer: tuple[str, ...] = ()
    """What becomes of each stream that hears the utterance; then they are fine."""
    model: tuple[str, ...] = ()
    """What becomes of each request to the model about it; then they are fine."""
    synthesizer: tuple[str, ...] = ()
    """What becomes of each sentence of the reply; then they are fine."""

    @property
    def text(self) -> str:
        """What is said."""
        return " ".join(f"w{word}" for word in self.words)


@dataclass(frozen=True, slots=True)
class Visit:
    """One client, from its first connection to its last."""

    number: int
    client: str
    begins_s: float
    seed: int
    """Of the details that do not matter, such as jitter."""
    turns: tuple[Turn, ...]
    quality: LinkQuality
    ending: str = "leave"
    """How it ends: ``leave``, ``cut``, ``vanish``, or ``silent``: it stays until the
    server ends the session.
    """
    options: frozenset[str] = frozenset()
    """What it asks for, such as ``refresh``."""


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that happens to a server."""

    kind: str
    """``crash``, ``power loss``, ``drain``."""
    at_s: float
    server: int = 0
    back_s: float = 5.0
    """How long it stays away."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A run of the simulation."""

    seed: int
    visits: tuple[Visit, ...]
    servers: int = 1
    incidents: tuple[Incident, ...] = ()

    @property
    def turns(self) -> int:
        """How many turns it has."""
        return sum(len(visit.turns) for visit in self.visits)

    @property
    def faults(self) -> int:
        """How many things go wrong in it."""
        of_turns = sum(
            len(turn.mishaps) + len(turn.recognizer) + len(turn.model) + len(turn.synthesizer)
            for visit in self.visits
            for turn in visit.turns
        )
        return of_turns + len(self.incidents)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How scenarios are drawn."""

    visits: int = 12
    visit_s: float = 1800.0
    """How long a visit is, about."""
    turn_s: float = 30.0
    """How long it is from turn to turn, about."""
    servers: int = 1
    faults: bool = True
    clients: tuple[str, ...] = CLIENTS


_MISHAPS = {
    "cancel": 16,
    "cut": 1,
    "vanish": 1,
    "leave": 1,
    "stop reading": 2,
    "clear": 2,
    "forget": 2,
    "talk over": 3,
    "ping": 3,
    "garbage": 2,
    "played": 3,
    "complete again": 2,
}
_RECOGNIZER = {"slow": 4, "fails": 3, "breaks": 2, "hangs": 1, "stops": 2, "garbage": 1}
_MODEL = {"slow": 4, "fails": 3, "breaks off": 2, "hangs": 1, "empty": 1, "garbage": 1}
_SYNTHESIZER = {"slow": 4, "fails": 2, "breaks off": 2, "hangs": 1, "mute": 1, "garbage": 1}


def draw_scenario(seed: int, plan: Plan) -> Scenario:
    """Draw the scenario of a seed."""
    random = Random(seed)
    possible = [head for head in range(FIRST_HEAD, LAST_HEAD) if head & 0xFF != _TRANSPORT_STREAM]
    heads = iter(random.sample(possible, k=4_000))
    visits = tuple(_draw_visit(number, random, heads, plan) for number in range(plan.visits))
    incidents: tuple[Incident, ...] = ()
    if plan.servers > 1 and plan.faults:
        incidents = tuple(_draw_incident(random, plan) for _ in range(random.randint(0, 6)))
    return Scenario(seed, visits, plan.servers, incidents)


def _draw_incident(random: Random, plan: Plan) -> Incident:
    return Incident(
        random.choice(("crash", "power loss", "drain")),
        at_s=random.uniform(10, 2 * plan.visit_s),
        server=random.randrange(plan.servers),
        back_s=random.choice((2.0, 30.0)),
    )


def _draw_visit(number: int, random: Random, heads: "object", plan: Plan) -> Visit:
    count = max(1, round(random.expovariate(1) * plan.visit_s / plan.turn_s))
    count = min(count, round(3 * plan.visit_s / plan.turn_s))
    turns = tuple(_draw_turn(random, next(heads), plan) for _ in range(count))  # type: ignore[call-overload]
    quality = LinkQuality(
        delay_s=random.choice((0.001, 0.02, 0.08, 0.3)),
        jitter_s=random.choice((0.0, 0.0, 0.02, 0.2)),
    )
    ending = random.choices(("leave", "cut", "vanish", "silent"), (6, 2, 1, 1))[0]
    options = frozenset(
        option
        for option, share in (("refresh", 0.2), ("binary", 0.3), ("paced", 0.2))
        if random.random() < share
    )
    return Visit(
        number=number,
        client=random.choice(plan.clients),
        begins_s=random.uniform(0, 30),
        seed=random.getrandbits(32),
        turns=turns,
        quality=quality,
        ending=ending if plan.faults else "leave",
        options=options,
    )


def _draw_turn(random: Random, head: int, plan: Plan) -> Turn:
    others = random.sample(range(FIRST_WORD, LAST_WORD), k=random.randint(0, 5))
    turn = Turn(
        head=head,
        words=(head, *others),
        pause_s=min(random.expovariate(1) * (plan.turn_s - 6), 55.0),
        typed=random.random() < 0.3,
    )
    return _with_faults(turn, random) if plan.faults else turn


def _with_faults(turn: Turn, random: Random) -> Turn:
    mishaps: list[Mishap] = []
    while random.random() < 0.3 and len(mishaps) < 3:
        kind = random.choices(tuple(_MISHAPS), tuple(_MISHAPS.values()))[0]
        after_s = random.choice(
            (
                random.uniform(-0.6, 0.0),
                0.0,
                random.uniform(0, 0.4),
                random.uniform(0.3, 1.5),
                random.uniform(0.2, 3.0),
            )
        )
        mishaps.append(Mishap(kind, after_s, random.choice((0.5, 5.0, 15.0))))
    mishaps.sort(key=lambda mishap: mishap.after_s)
    return replace(
        turn,
        mishaps=tuple(mishaps),
        recognizer=_fates(random, _RECOGNIZER),
        model=_fates(random, _MODEL),
        synthesizer=_fates(random, _SYNTHESIZER),
    )


def _fates(random: Random, kinds: dict[str, int]) -> tuple[str, ...]:
    fates: list[str] = []
    while random.random() < 0.08 and len(fates) < 3:
        fates.append(random.choices(tuple(kinds), tuple(kinds.values()))[0])
    return tuple(fates)
