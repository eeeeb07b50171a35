"""Places that are shared among keys."""

import asyncio

from voicechat.server.fair_semaphore import FairSemaphore


async def settle() -> None:
    """Let everybody go on who can."""
    for _ in range(5):
        await asyncio.sleep(0)


class Crowd:
    """Holders of places, each until it is told to leave."""

    def __init__(self, places: FairSemaphore) -> None:
        self.places = places
        self.inside: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def come(self, *names: str) -> None:
        for name in names:
            self.tasks[name] = asyncio.get_running_loop().create_task(self._hold(name))
            await settle()

    async def _hold(self, name: str) -> None:
        async with self.places.slot(name[0]):
            self.inside.append(name)
            try:
                await asyncio.Event().wait()
            finally:
                self.inside.remove(name)

    async def leave(self, *names: str) -> None:
        for name in names:
            self.tasks[name].cancel()
        await settle()
        assert all(self.tasks[name].cancelled() for name in names)


async def test_one_key_may_have_all_common_places_and_another_still_gets_one() -> None:
    crowd = Crowd(FairSemaphore(2))
    await crowd.come("a1", "a2", "a3", "b1", "b2", "c1")
    assert crowd.inside == ["a1", "a2", "b1"]
    await crowd.leave(*crowd.tasks)
    assert crowd.places.slots_in_use == 0


async def test_those_who_wait_are_served_a_key_after_the_other() -> None:
    crowd = Crowd(FairSemaphore(1, reserved=0))
    await crowd.come("a1", "a2", "a3", "b1", "b2")
    served = []
    for _ in range(5):
        (name,) = crowd.inside
        served.append(name)
        await crowd.leave(name)
    assert served == ["a1", "a2", "b1", "a3", "b2"]
    assert crowd.places.slots_in_use == 0


async def test_who_gives_up_waiting_leaves_no_place_taken() -> None:
    crowd = Crowd(FairSemaphore(1, reserved=0))
    await crowd.come("a1", "a2", "b1")
    await crowd.leave("a2")
    await crowd.leave("a1")
    assert crowd.inside == ["b1"]
    # The place comes and the waiting is given up in the same pass.
    await crowd.come("a3")
    crowd.tasks["b1"].cancel()
    crowd.tasks["a3"].cancel()
    await settle()
    assert crowd.places.slots_in_use == 0
    await crowd.come("c1")
    assert crowd.inside == ["c1"]
    await crowd.leave("c1")


async def test_who_leaves_together_with_one_that_waits_lets_the_next_one_in() -> None:
    crowd = Crowd(FairSemaphore(1, reserved=0))
    await crowd.come("a1", "a2", "a3", "b1")
    await crowd.leave("a2", "a1")
    assert crowd.inside == ["a3"]
    await crowd.leave("a3", "b1")
    assert crowd.places.slots_in_use == 0
    await crowd.come("c1")
    assert crowd.inside == ["c1"]
    await crowd.leave("c1")
