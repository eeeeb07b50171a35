"""What commands make the runtime do, through a dialect that hands commands on and keeps what it is
told.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from voicechat.dialects import base
from voicechat.runtime.conversation import Conversation, SessionProviders
from voicechat.runtime.encoding import EncodingThreads
from voicechat.session import commands as cmd
from voicechat.session import notices as nt
from voicechat.session.agent import Agent
from voicechat.session.limits import SessionLimits
from voicechat.session.session import Session
from voicechat.session.vocabulary import ReplyWishes, Settings, VoiceSettings
from voicechat.testing.scripted import ScriptedModel, ScriptedRecognizer, ScriptedSynthesizer
from voicechat.testing.socket import MemorySocket

N = TypeVar("N")
ASKED = {"role": "user", "content": "Name the speaker's mood."}


class Table(base.Dialect):
    """Frames are numbers of the commands that it was given."""

    def __init__(self) -> None:
        self.commands: list[cmd.AnyCommand] = []
        self.told: list[nt.Notice] = []

    def receive(self, frame: base.Frame, now_ms: int) -> Iterable[base.Reaction]:
        yield self.commands[int(frame)]

    def notify(self, notice: nt.Notice, now_ms: int) -> Iterable[base.Reaction]:
        self.told.append(notice)
        return [base.Tell("audio")] if isinstance(notice, nt.ReplyAudio) else []


class Played:
    def __init__(self, model: ScriptedModel, settings: Settings, agent: Agent) -> None:
        self.model = model
        self.synthesizer = ScriptedSynthesizer()
        self.table = Table()
        self.socket = MemorySocket()
        limits = SessionLimits()
        self.conversation = Conversation(
            Session(settings, limits, agent=agent),
            self.table,
            self.socket,
            SessionProviders(
                recognizer=ScriptedRecognizer(),
                models=lambda _: model,
                synthesizer=self.synthesizer,
                threads=EncodingThreads(),
            ),
            limits=limits,
            observe=lambda _: None,
        )

    def command(self, command: cmd.AnyCommand) -> None:
        self.table.commands.append(command)
        self.socket.send_from_client(str(len(self.table.commands) - 1))

    def of(self, kind: type[N]) -> list[N]:
        return [notice for notice in self.table.told if isinstance(notice, kind)]

    async def until(self, kind: type[Any], count: int = 1) -> None:
        async with asyncio.timeout(100):
            while len(self.of(kind)) < count:  # noqa: ASYNC110 - virtual time: polling costs nothing
                await asyncio.sleep(0.001)


@asynccontextmanager
async def playing(
    model: ScriptedModel | None = None,
    settings: Settings | None = None,
    agent: Agent | None = None,
) -> AsyncIterator[Played]:
    played = Played(model or ScriptedModel(), settings or Settings(), agent or Agent())
    running = asyncio.get_running_loop().create_task(played.conversation.run())
    try:
        await asyncio.sleep(0)
        yield played
    finally:
        played.socket.disconnect()
        await running
    assert played.model.open == played.synthesizer.open == 0


async def test_a_reply_in_text_only_is_never_synthesised() -> None:
    async with playing() as played:
        played.command(cmd.CommitTurn("hi", respond=False))
        played.command(cmd.Respond(ReplyWishes(spoken=False), cause="r"))
        await played.until(nt.TurnCompleted, 2)
    assert [notice.cause for notice in played.of(nt.ReplyBegun)] == ["r"]
    assert "".join(notice.text for notice in played.of(nt.ReplyText)) == "Hello there. How are you?"
    assert not played.of(nt.SentenceBegun)
    assert not played.of(nt.ReplyAudio)
    assert not played.synthesizer.texts
    [ended] = played.of(nt.ReplyEnded)
    assert ended.outcome is nt.Outcome.SPOKEN
    assert [item.message["content"] for item in ended.items] == ["Hello there. How are you?"]


async def test_a_reply_apart_is_made_while_another_is_spoken_and_leaves_it_alone() -> None:
    model = ScriptedModel((("One. ", "Two. ", "Three."), ("Cheerful.",), ("Four.",)))
    async with playing(model, Settings(lead_ms=500)) as played:
        played.command(cmd.CommitTurn("count"))
        await played.until(nt.ReplyAudio)
        wishes = ReplyWishes(input=(ASKED,), spoken=False, apart=True)
        played.command(cmd.Respond(wishes, cause="mood"))
        await played.until(nt.ReplyEnded)
        assert not played.of(nt.TurnCompleted), "the turn's reply is still spoken"
        await played.until(nt.TurnCompleted)
        played.command(cmd.CommitTurn("go on"))
        await played.until(nt.TurnCompleted, 2)
    apart, spoken, _ = played.of(nt.ReplyEnded)
    assert (apart.reply, apart.items) == (2, ())
    assert spoken.outcome is nt.Outcome.SPOKEN
    assert model.requests[1].messages == (ASKED,)
    remembered = [message["content"] for message in model.requests[2].messages]
    assert remembered == ["count", "One. Two. Three.", "go on"]


async def test_wishes_hold_for_one_reply() -> None:
    async with playing() as played:
        wishes = ReplyWishes(instructions="In verse.", options={"temperature": 0})
        played.command(cmd.AddItem({"role": "user", "content": "hi"}, "mine"))
        for number, wished in enumerate((wishes, ReplyWishes()), 1):
            played.command(cmd.Respond(wished))
            await played.until(nt.TurnCompleted, number)
    first, second = played.model.requests
    assert first.messages[0] == {"role": "system", "content": "In verse."}
    assert first.options["temperature"] == 0
    assert [message["role"] for message in second.messages] == ["user", "assistant"]
    assert "temperature" not in second.options


async def test_audio_comes_in_pieces_of_the_length_that_is_set() -> None:
    voice = VoiceSettings(piece_ms=20)
    async with playing(settings=Settings(voice=voice)) as played:
        played.command(cmd.CommitTurn("hi"))
        await played.until(nt.TurnCompleted)
    ends_ms = [notice.end_ms for notice in played.of(nt.ReplyAudio)]
    lengths_ms = {end - begin for begin, end in zip([0, *ends_ms], ends_ms, strict=False)}
    assert max(lengths_ms) == 20


async def test_each_sentence_is_told_before_its_audio() -> None:
    async with playing() as played:
        played.command(cmd.CommitTurn("hi"))
        await played.until(nt.TurnCompleted)
    told = [n for n in played.table.told if isinstance(n, nt.SentenceBegun | nt.ReplyAudio)]
    assert isinstance(told[0], nt.SentenceBegun)
    begun = ""
    for notice in told:
        if isinstance(notice, nt.SentenceBegun):
            begun = notice.text
        else:
            assert begun == ("Hello there.", "How are you?")[notice.sentence]


async def test_a_greeting_is_spoken_without_asking_a_model() -> None:
    async with playing(agent=Agent(greeting="Good day.")) as played:
        played.command(cmd.Begin())
        await played.until(nt.TurnCompleted)
    assert played.synthesizer.texts == ["Good day."]
    assert not played.model.requests
