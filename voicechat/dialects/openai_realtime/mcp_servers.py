"""The MCP servers of a connection: their tools, the calls in progress, and the calls
that wait for the client's approval.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from voicechat.dialects.base import Reaction, Tell
from voicechat.dialects.openai_realtime.events import EventError, EventWriter
from voicechat.dialects.openai_realtime.items import RealtimeConversation, RealtimeItem
from voicechat.dialects.openai_realtime.tools import (
    MOST_SERVERS,
    AnyTool,
    McpTarget,
    McpTool,
    ToolOffer,
    offer_of,
)
from voicechat.dialects.tool_servers import (
    CallTool,
    ForgetToolServer,
    ListTools,
    OfferedTool,
    ToolServerAddress,
    ToolsListed,
)
from voicechat.schema.json_text import shown
from voicechat.session.types import ToolAnswer, ToolOutcome


@dataclass(slots=True, eq=False)
class McpListing:
    """The cause of a ``ListTools``, and the list that came back."""

    tool: McpTool
    item: RealtimeItem
    tools: tuple[OfferedTool, ...] | None = None
    """None: the list has not come yet."""
    failed: bool = False


@dataclass(slots=True, eq=False)
class McpCall:
    """The cause of a ``CallTool``: a call in progress, and its item."""

    item: RealtimeItem
    request: RealtimeItem
    """The item whose message in the history makes the call: ``item``, or the request
    for its approval.
    """
    output_index: int = 0


@dataclass(frozen=True, slots=True)
class McpApproval:
    """A call that waits for the client's approval."""

    item: RealtimeItem
    target: McpTarget


@dataclass(slots=True)
class McpServers:
    """The servers of one connection. Its methods return events for the client and
    requests to the servers.
    """

    writer: EventWriter
    conversation: RealtimeConversation
    _listings: dict[str, McpListing] = field(default_factory=dict)
    """The lists, by the server's label."""
    _approvals: dict[str, McpApproval] = field(default_factory=dict)
    """The approvals, by the ids of their items."""

    # --- lists ------------------------------------------------------------------------

    def configure(self, tools: Iterable[AnyTool]) -> list[Reaction]:
        """Set the session's tools: ask servers that are new, have changed or could not
        be asked, and drop those that are gone.
        """
        servers = _servers_of(tools)
        labels = {tool.server_label for tool in servers}
        reactions: list[Reaction] = []
        for label in self._listings.keys() - labels:
            reactions += self._forget(label)
        for tool in servers:
            reactions += self._ask(tool)
        return reactions

    def prepare(self, tools: Iterable[AnyTool]) -> list[Reaction]:
        """Ask the servers that a response adds. Raises ``EventError``."""
        reactions: list[Reaction] = []
        for tool in _servers_of(tools):
            if tool.server_url is None and tool.server_label not in self._listings:
                label = shown(tool.server_label)
                message = f"response.tools: {label} has no server_url, nor has the session one"
                raise EventError("invalid_value", message, "response.tools")
            known = len(self._listings.keys() | {tool.server_label})
            if known > MOST_SERVERS:
                message = f"response.tools: {known} MCP servers are more than {MOST_SERVERS}"
                raise EventError("invalid_value", message, "response.tools")
            if tool.server_url is not None:
                reactions += self._ask(tool)
        return reactions

    def listed(self, tools: Iterable[AnyTool]) -> bool:
        """Whether all servers among ``tools`` have answered with their lists."""
        found = (self._listings.get(tool.server_label) for tool in _servers_of(tools))
        return all(listing is None or listing.tools is not None for listing in found)

    def offer(self, tools: Iterable[AnyTool]) -> ToolOffer:
        """Return what is offered to the chat model of ``tools`` now."""
        return offer_of(tools, self._tools_of)

    def finish_list(self, listing: McpListing, answer: ToolsListed) -> list[Reaction]:
        """Take a server's list, or the failure to get one."""
        if self._listings.get(listing.tool.server_label) is not listing:
            return []
        listing.tools, listing.failed = answer.tools, bool(answer.failure)
        item = listing.item
        item.status = "completed"
        offered = [tool for tool in answer.tools if listing.tool.allows(tool)]
        item.content["tools"] = [_written(tool) for tool in offered]
        if answer.failure:
            item.content["error"] = answer.failure
        kind = "failed" if answer.failure else "completed"
        told = self.writer.write(f"mcp_list_tools.{kind}", item_id=item.id)
        return [Tell(told), *self._item_event("conversation.item.done", item)]

    def _ask(self, tool: McpTool) -> list[Reaction]:
        known = self._listings.get(tool.server_label)
        same = known is not None and known.tool.address == tool.address and not known.failed
        if known is not None and same:
            known.tool = tool
            return []
        forgotten = self._forget(tool.server_label)
        content: dict[str, object] = {
            "type": "mcp_list_tools",
            "server_label": tool.server_label,
            "tools": [],
        }
        item = RealtimeItem(self.writer.new_id("mcpl"), content, status="in_progress")
        listing = self._listings[tool.server_label] = McpListing(tool, item)
        self.conversation.insert(item, None)
        return [
            *forgotten,
            *self._item_event("conversation.item.added", item),
            Tell(self.writer.write("mcp_list_tools.in_progress", item_id=item.id)),
            ListTools(tool.address, listing),
        ]

    def _forget(self, label: str) -> list[Reaction]:
        gone = self._listings.pop(label, None)
        if gone is None:
            return []
        told: list[Reaction] = []
        if gone.tools is None:
            gone.item.status = "incomplete"
            gone.item.content["error"] = "the server was taken out of the session"
            failed = self.writer.write("mcp_list_tools.failed", item_id=gone.item.id)
            told = [Tell(failed), *self._item_event("conversation.item.done", gone.item)]
        address = gone.tool.address
        if any(each.tool.address == address for each in self._listings.values()):
            return told
        return [*told, ForgetToolServer(address)]

    def _tools_of(self, tool: McpTool) -> tuple[ToolServerAddress, Sequence[OfferedTool]]:
        listing = self._listings.get(tool.server_label)
        if listing is None or listing.tools is None:
            return tool.address, ()
        return listing.tool.address, listing.tools

    # --- calls ------------------------------------------------------------------------

    def await_approval(self, item: RealtimeItem, target: McpTarget) -> None:
        """Note that ``item`` asked the client to approve a call."""
        self._approvals[item.id] = McpApproval(item, target)

    def take_approval(self, request_id: object) -> McpApproval:
        """Return the call that the client's answer is about, and remove it. Raises
        ``EventError``.
        """
        found = self._approvals.get(request_id) if isinstance(request_id, str) else None
        if found is None or found.item not in self.conversation.items:
            message = f"item.approval_request_id: {shown(request_id)} awaits no approval"
            raise EventError("invalid_value", message, "item.approval_request_id")
        del self._approvals[found.item.id]
        return found

    def begin_approved(self, approval: McpApproval) -> list[Reaction]:
        """Make a call that the client has approved."""
        target, request = approval.target, approval.item
        arguments = str(request.content["arguments"])
        item = call_item(self.writer.new_id("mcp"), target, arguments)
        item.content["approval_request_id"] = request.id
        self.conversation.insert(item, None)
        added = self._item_event("conversation.item.added", item)
        return [*added, *self.begin_call(McpCall(item, request), target)]

    def begin_call(self, call: McpCall, target: McpTarget) -> list[Reaction]:
        """Make a call whose item the client knows."""
        arguments = str(call.item.content["arguments"])
        place = {"item_id": call.item.id, "output_index": call.output_index}
        told = self.writer.write("response.mcp_call.in_progress", **place)
        return [Tell(told), CallTool(target.server, target.name, arguments, call)]

    def end_call(self, call: McpCall, answer: ToolAnswer) -> list[Tell]:
        """End a call that was answered, or has failed: a failure is its result, too."""
        item = call.item
        item.status = "completed"
        answered = answer.outcome is ToolOutcome.ANSWERED
        if answered:
            item.content["output"] = answer.content
        else:
            error = {"type": "tool_execution_error", "message": answer.content}
            item.content["error"] = error
        kind = "completed" if answered else "failed"
        place = {"item_id": item.id, "output_index": call.output_index}
        told = self.writer.write(f"response.mcp_call.{kind}", **place)
        return [Tell(told), *self._item_event("conversation.item.done", item)]

    def _item_event(self, event_type: str, item: RealtimeItem) -> list[Tell]:
        if item not in self.conversation.items:
            return []
        previous = self.conversation.previous_id(item)
        written = item.written()
        event = self.writer.write(event_type, previous_item_id=previous, item=written)
        return [Tell(event)]


def call_item(item_id: str, target: McpTarget, arguments: str) -> RealtimeItem:
    """Return the item of a call in progress."""
    content: dict[str, object] = {
        "type": "mcp_call",
        "server_label": target.server_label,
        "name": target.name,
        "arguments": arguments,
        "approval_request_id": None,
        "output": None,
        "error": None,
    }
    return RealtimeItem(item_id, content, status="in_progress")


def _servers_of(tools: Iterable[AnyTool]) -> list[McpTool]:
    return [tool for tool in tools if isinstance(tool, McpTool)]


def _written(tool: OfferedTool) -> dict[str, object]:
    return {
        "name": tool.name,
        "description": tool.description,
        "input_schema": tool.parameters,
        "annotations": {"readOnlyHint": tool.read_only},
    }
