"""Tasks that are deleted while a service works on them."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.compat.stage import Stage, media_stage

pytestmark = [pytest.mark.real_time, pytest.mark.long, pytest.mark.asyncio(loop_scope="module")]

VIDEOS = "/v1/videos"
PICTURES = "/any/v1/images/generations?async=true"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with media_stage(tmp_path_factory.mktemp("cancelling")) as stage:
        stage.vendors.polls = 1_000_000
        yield stage


async def submitted(stage: Stage, path: str, model: str) -> str:
    """Submit a task; return its id when the service works on it."""
    begun = len(stage.vendors.jobs)
    answer = await stage.live.ask(path, {"prompt": "a pig", "model": model})
    assert answer.status == 200, answer.content
    await stage.live.until(lambda: len(stage.vendors.jobs) > begun)
    return str(answer.json["id"])


async def deleted(stage: Stage, path: str) -> None:
    answer = await stage.live.ask(path, method="DELETE")
    assert answer.status == 200, answer.content


@pytest.mark.parametrize("model", ["default", "wan"])
async def test_the_service_is_asked_to_stop_and_nothing_is_kept(stage: Stage, model: str) -> None:
    task = await submitted(stage, VIDEOS, model)
    name = list(stage.vendors.jobs)[-1]
    await stage.live.until(lambda: stage.vendors.jobs[name] > 1)
    await deleted(stage, f"{VIDEOS}/{task}")
    await stage.live.until(lambda: name in stage.vendors.stopped)
    assert (await stage.live.ask(f"{VIDEOS}/{task}", method="GET")).status == 404
    listed = (await stage.live.ask(VIDEOS, method="GET")).json["data"]
    assert task not in [video["id"] for video in listed]


async def test_a_job_that_is_just_being_begun_is_stopped_too(stage: Stage) -> None:
    stage.vendors.answers.clear()
    task = await submitted(stage, VIDEOS, "default")
    name = list(stage.vendors.jobs)[-1]
    await deleted(stage, f"{VIDEOS}/{task}")
    assert name not in stage.vendors.stopped
    stage.vendors.answers.set()
    await stage.live.until(lambda: name in stage.vendors.stopped)


async def test_pictures_are_stopped_too(stage: Stage) -> None:
    task = await submitted(stage, PICTURES, "qwen")
    name = list(stage.vendors.jobs)[-1]
    address = f"/api/open-apis/projects/default/easyllms/texttoimage/task/{task}"
    await deleted(stage, address)
    await stage.live.until(lambda: name in stage.vendors.stopped)
    assert (await stage.live.ask(address, method="GET")).status == 404
