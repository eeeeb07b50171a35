"""The users of ``tools.cluster_chaos`` notice what must not happen, and the cluster
carries conversations.
"""

import os
import shutil
from pathlib import Path

import pytest

from tools.cluster_chaos.__main__ import converse
from tools.cluster_chaos.cluster import running_cluster
from tools.cluster_chaos.script import GREETING, Answer, answer_to, answers_in
from tools.cluster_chaos.users import Tally, User
from voicechat.client import Reconnected, ReplyTextMessage, TurnCompletedMessage


def user(*said: int) -> tuple[User, Tally]:
    """A user who has said these turns, each once."""
    tally = Tally(turns=1)
    made = User(1, "http://127.0.0.1:1", tally, seed=1)
    made._said = dict.fromkeys(said, 1)
    return made, tally


def hear(listener: User, *replies: str) -> None:
    for reply in replies:
        for at in range(0, len(reply), 7):
            listener._hear(ReplyTextMessage(reply, reply[at : at + 7]))
        listener._hear(TurnCompletedMessage(0, ""))


def test_an_answer_names_its_turn_and_what_the_model_knows() -> None:
    said = ["turn number 10001", "turn number 10002", "turn number 10002"]
    answer = answer_to(said, "ab12")
    assert answer == Answer(10002, "ab12", 1)
    assert answers_in(f"Well. {answer.text}And so on.") == [answer]


async def test_a_conversation_that_goes_on_has_no_faults() -> None:
    listener, tally = user(1, 2, 3)
    hear(listener, GREETING, Answer(1, "a", 0).text, Answer(2, "b", 1).text)
    listener._hear(Reconnected())
    hear(listener, Answer(3, "c", 2).text)
    assert tally.sound, tally.faults
    assert listener._finished == {1, 2, 3}


async def test_each_fault_is_noticed() -> None:
    listener, tally = user(1, 2, 3)
    hear(listener, GREETING, Answer(1, "a", 0).text, Answer(2, "b", 0).text)
    assert tally.faults["answers without the whole history"] == ["turn 2: 0 of 1 turns known"]
    listener._hear(Reconnected())
    hear(listener, Answer(2, "b", 1).text)
    assert tally.faults["doubled answers"] == ["turn 2"], "the same answer, repeated"
    hear(listener, Answer(1, "d", 1).text)
    assert tally.faults["doubled answers"] == ["turn 2", "turn 1"], "a second answer"
    hear(listener, f"{GREETING} ")
    assert tally.faults["second greetings"] == ["user 1"]
    assert not tally.sound


async def test_a_turn_that_was_said_again_may_be_answered_again() -> None:
    listener, tally = user(1)
    hear(listener, Answer(1, "a", 0).text)
    listener._said[1] = 2
    hear(listener, Answer(1, "b", 0).text)
    assert tally.sound


@pytest.mark.long
@pytest.mark.real_time
async def test_conversations_pass_through_the_cluster(tmp_path: Path) -> None:
    path = f"{os.environ['PATH']}:/usr/sbin"
    if not (shutil.which("haproxy", path=path) and shutil.which("redis-server")):
        pytest.skip("needs haproxy and redis-server (Debian packages of these names)")
    async with running_cluster(tmp_path, 2) as cluster:
        tally = await converse([cluster.url] * 4, 4.0, seed=1)
    assert tally.sound, tally.faults
    assert tally.turns > 0
