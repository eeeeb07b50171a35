import asyncio

import pytest

from voicechat.testing.virtual_time import StalledError, VirtualTimeLoop


async def test_an_hour_passes_at_once() -> None:
    loop = asyncio.get_running_loop()
    before = loop.time()
    await asyncio.sleep(3600)
    assert loop.time() - before == 3600


def test_a_deadlock_fails_at_once() -> None:
    async def forever() -> None:
        await asyncio.Event().wait()

    loop = VirtualTimeLoop()
    with pytest.raises(StalledError):
        loop.run_until_complete(forever())
    loop.close()


async def test_a_thread_s_work_takes_no_time() -> None:
    loop = asyncio.get_running_loop()
    assert await loop.run_in_executor(None, sum, (1, 2)) == 3
    with pytest.raises(ZeroDivisionError):
        await loop.run_in_executor(None, divmod, 1, 0)
    assert loop.time() == 0
