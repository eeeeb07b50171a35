"""The model of the firmware's player, and what devices are sent measured with it."""

import asyncio
import itertools
import random
from collections.abc import Sequence
from functools import partial

import pytest

from tests.devices.stage import DeviceHarness
from voicechat.dialects.base import Frame
from voicechat.dialects.xiaozhi.speech import OUTPUT_MS, START_GAP_MS, TRANSIT_MS
from voicechat.testing.device_player import QUEUE_PACKETS, START_MS, DevicePlayer
from voicechat.testing.scripted import ScriptedModel, ScriptedSynthesizer
from voicechat.testing.virtual_time import VirtualTimeLoop

START, STOP = '{"type":"tts","state":"start"}', '{"type":"tts","state":"stop"}'
SENTENCE = '{"type":"tts","state":"sentence_start","text":"a"}'


def played(*frames: tuple[str | bytes, int]) -> DevicePlayer:
    player = DevicePlayer()
    for frame, at_ms in frames:
        player.receive(frame, at_ms)
    return player


def test_the_player_plays_each_packet_for_60_ms() -> None:
    player = played((START, 0), *[(b"p", 100)] * 3, (STOP, 290))
    assert (player.played, player.late_ms, player.early_ms) == (3, [10], [])


def test_the_player_tells_an_early_stop() -> None:
    assert played((START, 0), *[(b"p", 100)] * 3, (STOP, 250)).early_ms == [30]


def test_the_player_ignores_what_comes_before_it_has_begun_and_after_its_end() -> None:
    player = played((b"p", 0), (START, 10), (b"p", 20), (b"p", 60), (STOP, 200), (b"p", 210))
    assert (player.played, player.ignored) == (1, 3)


def test_the_player_drops_what_its_queue_has_no_room_for() -> None:
    player = played((START, 0), *[(b"p", 100)] * (QUEUE_PACKETS + 3))
    assert (player.dropped, player.most_queued) == (2, QUEUE_PACKETS)


def test_the_player_tells_gaps_within_a_sentence_only() -> None:
    gap = (START, 0), (SENTENCE, 0), (b"p", 100), (b"p", 200)
    assert played(*gap).dry_ms == [40]
    assert played(*gap[:3], (SENTENCE, 200), (b"p", 200)).dry_ms == []


class Talk(DeviceHarness):
    """Random replies and aborts, all from one seed."""

    def __init__(self, seed: int, replies: int, chunk_delays_ms: Sequence[int]) -> None:
        self.chance = chance = random.Random(seed)
        self.packet_ms = chance.choice((60, 60, 60, 20, 40, 120))
        texts = [[self.sentence() for _ in range(chance.randint(1, 3))] for _ in range(replies)]
        super().__init__(
            model=ScriptedModel(
                replies=texts,
                first_ms=chance.choice((0, 1, 50, 400)),
                delta_ms=chance.choice((0, 5, 200)),
            ),
            synthesizer=ScriptedSynthesizer(
                rate_hz=chance.choice((16_000, 22_050, 24_000)),
                ms_per_character=chance.randint(20, 60),
                first_ms=chance.choice((0, 20, 150)),
                chunk_delay_ms=chance.choice(chunk_delays_ms),
            ),
            poll_s=0.05,
        )
        self.aborted_s: list[float] = []

    def sentence(self) -> str:
        return "x" * self.chance.randint(3, 40) + ". "

    async def talk(self) -> None:
        """Ask for one reply after the other, and stop some of them."""
        async with self:
            self.hello(audio_params={"format": "opus", "frame_duration": self.packet_ms})
            for _ in self.model.replies:
                asked = len(self.socket.sent)
                self.listen("detect", text="tell me something")
                if self.chance.random() < 0.4:
                    await asyncio.sleep(self.chance.randint(0, 2_000) / 1000)
                    self.aborted_s.append(asyncio.get_running_loop().time())
                    self.say(type="abort")
                await self.until(partial(self.stopped_since, asked))
                await asyncio.sleep(self.chance.choice((0.0, 0.1, 1.0)))

    def stopped_since(self, number: int) -> bool:
        return any(is_stop(sent.frame) for sent in self.socket.sent[number:])


def talked(seed: int, replies: int, chunk_delays_ms: Sequence[int]) -> Talk:
    """A whole talk of that seed, in virtual time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        talk = Talk(seed, replies, chunk_delays_ms)
        runner.run(talk.talk())
    return talk


def is_stop(frame: Frame) -> bool:
    return isinstance(frame, str) and '"tts"' in frame and '"stop"' in frame


def is_start(frame: Frame) -> bool:
    return isinstance(frame, str) and '"tts"' in frame and '"start"' in frame


def check(talk: Talk, player: DevicePlayer) -> None:
    """Nothing is lost, late or cut off, but for what was stopped on purpose."""
    assert (player.dropped, player.ignored, player.dry_ms) == (0, 0, [])
    assert not player.speaking
    latest_ms = 2 * TRANSIT_MS + OUTPUT_MS + START_GAP_MS
    assert player.stops >= player.starts
    assert len(player.early_ms) <= len(talk.aborted_s)
    assert all(late_ms <= latest_ms for late_ms in player.late_ms)
    for aborted_s in talk.aborted_s:
        after = [sent for sent in talk.socket.sent if sent.at_s >= aborted_s]
        stop = next(number for number, sent in enumerate(after) if is_stop(sent.frame))
        assert after[stop].at_s - aborted_s < 0.002
        rest = itertools.takewhile(lambda sent: not is_start(sent.frame), after[stop:])
        assert not any(isinstance(sent.frame, bytes) for sent in rest)


NETWORKS = {
    "quick network, slow voice": (10, START_MS, (0, 10, 40)),
    "slow network, quick voice": (300, 0, (0, 5)),
}
"""How late messages may be, how late the firmware begins, how slow the synthesiser is.
"""


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("seed", range(3))
def test_random_replies_are_heard_whole_and_stop_at_once(seed: int, network: str) -> None:
    delay_ms, start_ms, chunk_delays_ms = NETWORKS[network]
    talk = talked(seed, 4, chunk_delays_ms)
    check(talk, talk.play(DevicePlayer(talk.packet_ms, start_ms), delay_ms, seed))


@pytest.mark.long
def test_a_thousand_random_replies_are_heard_whole_and_stop_at_once() -> None:
    for seed, (delay_ms, start_ms, chunk_delays_ms) in itertools.product(
        range(100, 150), NETWORKS.values()
    ):
        talk = talked(seed, 10, chunk_delays_ms)
        check(talk, talk.play(DevicePlayer(talk.packet_ms, start_ms), delay_ms, seed))
