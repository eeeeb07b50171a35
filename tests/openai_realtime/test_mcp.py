"""Tools of MCP servers that a client names: listed, called, approved."""

import json
from typing import Any

import pytest

from tests.openai_realtime.client import MANUAL, Event, RealtimeStage
from tests.openai_realtime.home import NOT_ALLOWED, URL, Home, mcp
from voicechat.runtime.session_tools import UNREACHABLE
from voicechat.session.types import ToolCall
from voicechat.testing.scripted import ScriptedModel


def with_tools(*tools: Event, **more: Any) -> dict[str, Any]:
    return {**MANUAL, "output_modalities": ["text"], "tools": list(tools), **more}


def called(name: str, arguments: str = '{"on": true}', index: int = 0) -> ToolCall:
    return ToolCall(index, f"call_{name}_{index}", name, arguments)


def offered(stage: RealtimeStage, request: int = -1) -> list[str]:
    tools: Any = stage.model.requests[request].options.get("tools", [])
    return [tool["function"]["name"] for tool in tools]


def history(stage: RealtimeStage, request: int = -1) -> list[tuple[str, str]]:
    """Roles and what is said, called or answered in them."""
    found = []
    for message in stage.model.requests[request].messages:
        calls: Any = message.get("tool_calls") or ()
        names = [call["function"]["name"] for call in calls]
        found.append((str(message["role"]), "+".join(names) or str(message["content"])))
    return found


async def test_a_servers_tools_are_listed_called_and_remembered() -> None:
    home = Home()
    model = ScriptedModel(((called("lamp"),), ("There is light.",)))
    stage = RealtimeStage(model=model, tool_servers=home.open, update=None)
    async with stage:
        secret = {"authorization": "token", "headers": {"X-House": "7"}}
        stage.say("session.update", session=with_tools(mcp(**secret)))
        updated = await stage.until("session.updated")
        tool = updated["session"]["tools"][0]
        assert not {"authorization", "headers"} & tool.keys(), "secrets are not echoed"
        await stage.until("mcp_list_tools.completed")
        assert home.opened[0].headers == (("Authorization", "Bearer token"), ("X-House", "7"))
        begin = stage.kinds().index("session.updated")
        assert stage.kinds(begin)[:5] == [
            "session.updated",
            "conversation.item.added",
            "mcp_list_tools.in_progress",
            "mcp_list_tools.completed",
            "conversation.item.done",
        ]
        listed = stage.of("conversation.item.done")[-1]["item"]
        assert listed["type"] == "mcp_list_tools"
        assert [tool["name"] for tool in listed["tools"]] == ["lamp", "read", "break"]
        await stage.say_text("light please")
        before = len(stage.events)
        response = await stage.respond()
        assert offered(stage) == ["lamp", "read", "break"]
        await stage.until("response.mcp_call.completed")
        assert [kind for kind in stage.kinds(before) if kind != "rate_limits.updated"] == [
            "response.created",
            "response.output_item.added",
            "conversation.item.added",
            "response.mcp_call_arguments.delta",
            "response.mcp_call_arguments.done",
            "response.mcp_call.in_progress",
            "response.output_item.done",
            "response.done",
            "response.mcp_call.completed",
            "conversation.item.done",
        ]
        call = stage.of("conversation.item.done")[-1]["item"]
        assert call["id"] == response["output"][0]["id"]
        assert (call["type"], call["name"], call["output"]) == ("mcp_call", "lamp", "lamp done")
        assert home.asked == [("lamp", {"on": True})]
        assert (await stage.respond())["output"][0]["content"][0]["text"] == "There is light."
        assert history(stage) == [
            ("user", "light please"),
            ("assistant", "lamp"),
            ("tool", "lamp done"),
        ]
    assert home.closed == 1


async def test_a_call_that_fails_is_a_result() -> None:
    home = Home()
    model = ScriptedModel(((called("break"), called("gone", index=1)), ("It is broken.",)))
    async with RealtimeStage(
        model=model, tool_servers=home.open, update=with_tools(mcp())
    ) as stage:
        await stage.until("mcp_list_tools.completed")
        await stage.say_text("break it")
        await stage.respond()
        failed = await stage.until("response.mcp_call.failed")
        item = stage.of("conversation.item.done")[-1]["item"]
        assert item["id"] == failed["item_id"]
        assert item["error"] == {"type": "tool_execution_error", "message": "it is broken"}
        await stage.respond()
        assert ("tool", "it is broken") in history(stage)


async def test_the_client_is_told_only_after_the_response_which_may_go_on_speaking() -> None:
    home = Home()
    model = ScriptedModel((("I am looking. ", called("lamp")), ("Done.",)))
    async with RealtimeStage(
        model=model, tool_servers=home.open, update=with_tools(mcp(), output_modalities=["audio"])
    ) as stage:
        await stage.until("mcp_list_tools.completed")
        await stage.say_text("light please")
        stage.say("response.create")
        await stage.until("response.mcp_call.completed")
        kinds = stage.kinds()
        assert home.asked
        assert kinds.index("response.done") < kinds.index("response.mcp_call.completed")
        await stage.respond()
        assert history(stage)[1:] == [("assistant", "lamp"), ("tool", "lamp done")]


async def test_approval() -> None:
    home = Home()
    model = ScriptedModel(((called("lamp"),), ("Light.",), (called("lamp"),), ("No light.",)))
    update = with_tools(mcp(require_approval={"never": {"read_only": True}}))
    async with RealtimeStage(model=model, tool_servers=home.open, update=update) as stage:
        await stage.until("mcp_list_tools.completed")
        await stage.say_text("light please")
        for approve in (True, False):
            response = await stage.respond()
            request = response["output"][0]
            assert request["type"] == "mcp_approval_request"
            assert json.loads(request["arguments"]) == {"on": True}
            answer = {
                "type": "mcp_approval_response",
                "approval_request_id": request["id"],
                "approve": approve,
            }
            assert len(home.asked) == (not approve), "nothing happens before"
            stage.say("conversation.item.create", item=answer | {"reason": "too bright"})
            if approve:
                await stage.until("response.mcp_call.completed")
                item = stage.of("conversation.item.done")[-1]["item"]
                assert item["approval_request_id"] == request["id"]
                assert item["output"] == "lamp done"
            stage.say("conversation.item.create", item=answer, event_id="again")
            assert "awaits no approval" in (await stage.error())["message"]
            await stage.respond()
        assert len(home.asked) == 1
        assert history(stage)[1:] == [
            ("assistant", "lamp"),
            ("tool", "lamp done"),
            ("assistant", "Light."),
            ("assistant", "lamp"),
            ("tool", "The user has not approved this call. too bright"),
        ]


async def test_which_tools_are_offered() -> None:
    home = Home()
    lamp = {"type": "function", "name": "lamp", "parameters": {"type": "object"}}
    async with RealtimeStage(tool_servers=home.open, update=with_tools(lamp, mcp())) as stage:
        await stage.until("mcp_list_tools.completed")
        await stage.respond()
        assert offered(stage) == ["lamp", "home__lamp", "read", "break"]
        for allowed, names in ((["read"], ["read"]), ({"read_only": True}, ["read"]), ([], [])):
            stage.say("session.update", session={"tools": [mcp(allowed_tools=allowed)]})
            await stage.respond()
            assert offered(stage) == names
        choice = {"type": "mcp", "server_label": "home", "name": "read"}
        stage.say("session.update", session={"tools": [mcp()], "tool_choice": choice})
        await stage.respond()
        wanted = {"type": "function", "function": {"name": "read"}}
        assert stage.model.requests[-1].options["tool_choice"] == wanted
        await stage.respond(conversation="none")
        assert offered(stage) == [], "nothing of it is remembered: no tools of servers"
        stage.say("session.update", session={"tools": []})
        await stage.respond()
        assert offered(stage) == []
        await stage.harness.until(lambda: home.closed == 1)
        assert len(home.opened) == 1, "filters are laid over what is known"


async def test_tools_of_one_response() -> None:
    home = Home(wait_ms=500)
    async with RealtimeStage(tool_servers=home.open, update=with_tools()) as stage:
        await stage.say_text("hello")
        stage.say("response.create", response={"tools": [mcp()]})
        stage.say("response.create", event_id="second")
        error = await stage.error()
        assert error["code"] == "conversation_already_has_active_response"
        await stage.until("response.done")
        kinds = stage.kinds()
        assert kinds.index("mcp_list_tools.completed") < kinds.index("response.created")
        assert offered(stage) == ["lamp", "read", "break"]
        await stage.respond()
        assert offered(stage) == []
        await stage.respond(
            tools=[{"type": "mcp", "server_label": "home", "allowed_tools": ["read"]}]
        )
        assert offered(stage) == ["read"]
        unknown = {"type": "mcp", "server_label": "unknown"}
        stage.say("response.create", response={"tools": [unknown]})
        assert "has no server_url" in (await stage.error())["message"]


async def test_a_response_that_waits_for_a_list_is_cancelled() -> None:
    home = Home(wait_ms=60_000)
    async with RealtimeStage(tool_servers=home.open, update=with_tools()) as stage:
        await stage.say_text("hello")
        stage.say("response.create", response={"tools": [mcp()]})
        stage.say("response.cancel")
        done = await stage.until("response.done")
        assert done["response"]["status"] == "cancelled"
        await stage.respond()
        stage.say("session.update", session={"tools": [mcp(server_url=f"{URL}/other")]})
        await stage.until("mcp_list_tools.failed")
        stage.say("session.update", session={"tools": []})
        await stage.until("mcp_list_tools.failed", 2)


@pytest.mark.parametrize("lost", [False, True])
async def test_a_server_that_cannot_be_asked(lost: bool) -> None:
    home = Home(lost=lost)
    url = URL if lost else "https://private.example/mcp"
    async with RealtimeStage(
        tool_servers=home.open, update=with_tools(mcp(server_url=url))
    ) as stage:
        failed = await stage.until("mcp_list_tools.failed")
        item = stage.of("conversation.item.done")[-1]["item"]
        assert item["id"] == failed["item_id"]
        assert item["tools"] == []
        assert item["error"] == (UNREACHABLE if lost else NOT_ALLOWED)
        stage.say("conversation.item.retrieve", item_id=item["id"])
        assert (await stage.until("conversation.item.retrieved"))["item"] == item
        await stage.respond()
        assert offered(stage) == []


@pytest.mark.parametrize(
    ("tool", "where"),
    [
        ({"server_label": "no label"}, "session.tools[0].server_label"),
        ({"headers": {"A": "b\nc"}}, "session.tools[0].headers"),
        ({"authorization": "a\nb"}, "session.tools[0].authorization"),
        ({"allowed_tools": 7}, "session.tools[0].allowed_tools"),
        ({"require_approval": "sometimes"}, "session.tools[0].require_approval"),
        ({"server_url": 7}, "session.tools[0].server_url"),
    ],
)
async def test_what_is_wrong_is_named(tool: Event, where: str) -> None:
    async with RealtimeStage(update=None) as stage:
        stage.say("session.update", session=with_tools(mcp(**tool)))
        error = await stage.error()
        assert error["param"] == where


async def test_calls_that_outlive_their_session_leave_nothing() -> None:
    home = Home()
    home.answer.clear()
    async with RealtimeStage(
        model=ScriptedModel(((called("lamp"),),)), tool_servers=home.open, update=with_tools(mcp())
    ) as stage:
        await stage.until("mcp_list_tools.completed")
        await stage.say_text("light please")
        await stage.respond()
        stage.say(
            "conversation.item.delete",
            item_id=stage.of("response.mcp_call.in_progress")[0]["item_id"],
        )
        assert (await stage.error())["code"] == "item_in_progress"
    assert home.closed == 1
