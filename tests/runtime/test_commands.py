"""What commands make the runtime do."""

from voicechat.session import commands as cmd
from voicechat.session import notices as nt
from voicechat.session.agent import Agent
from voicechat.session.types import ChatSettings, ReplyOverrides, Settings, VoiceSettings
from voicechat.testing.harness import ScriptedHarness
from voicechat.testing.scripted import ScriptedModel

ASKED = {"role": "user", "content": "Name the speaker's mood."}


async def test_a_reply_in_text_only_is_never_synthesised() -> None:
    async with ScriptedHarness() as played:
        played.send(cmd.CommitTurn("hi", respond=False))
        played.send(cmd.Respond(ReplyOverrides(spoken=False), cause="r"))
        await played.notice(nt.TurnCompleted, 2)
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
    async with ScriptedHarness(model=model, settings=Settings(lead_ms=500)) as played:
        played.send(cmd.CommitTurn("count"))
        await played.notice(nt.ReplyAudio)
        wishes = ReplyOverrides(input=(ASKED,), spoken=False, out_of_band=True)
        played.send(cmd.Respond(wishes, cause="mood"))
        await played.notice(nt.ReplyEnded)
        assert not played.of(nt.TurnCompleted), "the turn's reply is still spoken"
        await played.notice(nt.TurnCompleted)
        played.send(cmd.CommitTurn("go on"))
        await played.notice(nt.TurnCompleted, 2)
    apart, spoken, _ = played.of(nt.ReplyEnded)
    assert (apart.reply, apart.items) == (2, ())
    assert spoken.outcome is nt.Outcome.SPOKEN
    assert model.requests[1].messages == (ASKED,)
    remembered = [message["content"] for message in model.requests[2].messages]
    assert remembered == ["count", "One. Two. Three.", "go on"]


async def test_wishes_hold_for_one_reply() -> None:
    async with ScriptedHarness() as played:
        wishes = ReplyOverrides(instructions="In verse.", options={"temperature": 0})
        played.send(cmd.AddItem({"role": "user", "content": "hi"}, "mine"))
        for number, wished in enumerate((wishes, ReplyOverrides()), 1):
            played.send(cmd.Respond(wished))
            await played.notice(nt.TurnCompleted, number)
    first, second = played.model.requests
    assert first.messages[0] == {"role": "system", "content": "In verse."}
    assert first.options["temperature"] == 0
    assert [message["role"] for message in second.messages] == ["user", "assistant"]
    assert "temperature" not in second.options


async def test_instructions_are_those_for_the_language_of_the_users_last_words() -> None:
    chat = ChatSettings(instructions="Be brief.", instructions_by_language={"zh": "简短。"})
    async with ScriptedHarness(settings=Settings(chat=chat)) as played:
        for number, said in enumerate(("how are you", "你好吗", "12", "and now English"), 1):
            played.send(cmd.CommitTurn(said))
            await played.notice(nt.TurnCompleted, number)
        wishes = ReplyOverrides(
            instructions="In verse.", input=({"role": "user", "content": "好"},)
        )
        played.send(cmd.Respond(wishes))
        await played.notice(nt.TurnCompleted, 5)
    told = [request.messages[0]["content"] for request in played.model.requests]
    assert told == ["Be brief.", "简短。", "Be brief.", "Be brief.", "In verse."]


async def test_audio_comes_in_pieces_of_the_length_that_is_set() -> None:
    voice = VoiceSettings(piece_ms=20)
    async with ScriptedHarness(settings=Settings(voice=voice)) as played:
        played.send(cmd.CommitTurn("hi"))
        await played.notice(nt.TurnCompleted)
    ends_ms = [notice.end_ms for notice in played.of(nt.ReplyAudio)]
    lengths_ms = {end - begin for begin, end in zip([0, *ends_ms], ends_ms, strict=False)}
    assert max(lengths_ms) == 20


async def test_each_sentence_is_told_before_its_audio() -> None:
    async with ScriptedHarness() as played:
        played.send(cmd.CommitTurn("hi"))
        await played.notice(nt.TurnCompleted)
    told = [n for n in played.notices if isinstance(n, nt.SentenceBegun | nt.ReplyAudio)]
    assert isinstance(told[0], nt.SentenceBegun)
    begun = ""
    for notice in told:
        if isinstance(notice, nt.SentenceBegun):
            begun = notice.text
        else:
            assert begun == ("Hello there.", "How are you?")[notice.sentence]


async def test_a_greeting_is_spoken_without_asking_a_model() -> None:
    async with ScriptedHarness(agent=Agent(greeting="Good day.")) as played:
        played.send(cmd.Begin())
        await played.notice(nt.TurnCompleted)
    assert played.synthesizer.texts == ["Good day."]
    assert not played.model.requests
