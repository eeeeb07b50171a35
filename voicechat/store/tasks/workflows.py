"""Converts DBOS workflows to tasks, and strips task contents from DBOS' log lines."""

import logging
from collections.abc import Mapping
from typing import Any

from dbos import WorkflowStatus, error

from voicechat.store.tasks.interface import Payload, StoredTask, TaskStatus

STATUS = {
    "ENQUEUED": TaskStatus.WAITING,
    "DELAYED": TaskStatus.WAITING,
    "PENDING": TaskStatus.DOING,
    "SUCCESS": TaskStatus.SUCCESS,
    "ERROR": TaskStatus.FAILED,
    "MAX_RECOVERY_ATTEMPTS_EXCEEDED": TaskStatus.FAILED,
}
"""A cancelled workflow is a deleted task."""


def as_task(workflow: WorkflowStatus) -> StoredTask:
    """Convert a workflow, unless it is a deleted task's, to a task."""
    outcome = workflow.output if isinstance(workflow.output, Mapping) else {}
    attributes = attributes_of(workflow)
    status = STATUS[workflow.status]
    error = str(outcome.get("error", "" if status is not TaskStatus.FAILED else "internal"))
    status = TaskStatus.FAILED if error else status
    return StoredTask(
        id=workflow.workflow_id,
        owner=workflow.authenticated_user or "",
        payload=payload_of(workflow),
        status=status,
        created_s=(workflow.created_at or 0) // 1000,
        progress=1.0 if status is TaskStatus.SUCCESS else float(attributes.get("progress", 0.0)),
        attempt=int(attributes.get("attempt", 0)),
        result=str(outcome.get("result", "")),
        error=error,
    )


def payload_of(workflow: WorkflowStatus) -> Payload:
    """Return the input of the work."""
    if not workflow.input or not workflow.input["args"]:
        return {}
    payload: Payload = workflow.input["args"][0]
    return payload


def attributes_of(workflow: WorkflowStatus) -> Mapping[str, Any]:
    """Return the task's attributes: ``fingerprint``, ``attempt``, ``progress``."""
    return workflow.attributes or {}


def without_contents(record: logging.LogRecord) -> bool:
    """Reduce DBOS' log lines to function and exception type: their texts may quote a
    task, and so what a person said.
    """
    kind = record.exc_info[0] if record.exc_info else None
    record.msg, record.args = f"{record.funcName}: {kind.__name__ if kind else 'error'}", ()
    record.exc_info = record.exc_text = None
    return (
        kind is not error.DBOSAwaitedWorkflowCancelledError
    )  # a task was deleted while it was performed
