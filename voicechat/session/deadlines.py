"""Which of several deadlines comes first: asked after every event."""


def earliest_ms(*deadlines_ms: int | None) -> int | None:
    """Return the earliest; None stands for no deadline."""
    earliest: int | None = None
    for deadline_ms in deadlines_ms:
        if deadline_ms is not None and (earliest is None or deadline_ms < earliest):
            earliest = deadline_ms
    return earliest
