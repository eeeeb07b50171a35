"""Every bound and deadline of a session, in one place. The project's own protocols
promise those marked (promised).
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionLimits:
    """Bounds of one session. All times are milliseconds, all sizes bytes."""

    idle_ms: int = 60_000
    """Without any message of the client for this long, the connection is closed
    (promised).
    """
    speech_idle_ms: int = 60_000
    """Without recognised speech for this long while listening, unless the client asked
    to be allowed it (promised).
    """
    ping_ms: int = 20_000
    """How often the server pings the connection; the answer counts as a message."""
    protocol_errors: int = 100
    """So many malformed messages in a row close the connection (promised)."""
    turn_audio_ms: int = 900_000
    """Audio of one turn, from its first recognised word (promised)."""
    unread_audio_ms: int = 60_000
    """Audio that the recogniser has not taken yet: past it the socket is not read, so a
    fast sender is slowed.
    """
    transcript_ms: int = 10_000
    """From the end of the user's turn to the recogniser's last result."""
    first_token_ms: int = 15_000
    """From asking the chat model to its first piece of text; thoughts, keep-alives and
    empty pieces are none.
    """
    between_tokens_ms: int = 10_000
    """Between two pieces of text, or of thoughts, of the chat model."""
    thinking_ms: int = 120_000
    """From the chat model's first piece of thoughts (``reasoning_content``) to its
    first piece of text.
    """
    tool_answer_ms: int = 30_000
    """From a tool call to the client's answer; then the model is told that there is
    none, and goes on.
    """
    tool_rounds: int = 8
    """How often the model may call tools of the client in one reply; then it must
    answer without.
    """
    speakable_wait_ms: int = 1_500
    """Text that waits this long for its sentence's end, while nothing is being spoken,
    is spoken as it stands.
    """
    first_audio_ms: int = 5_000
    """From handing a sentence to the synthesiser to its first audio."""
    between_audio_ms: int = 5_000
    """Between two pieces of audio of a sentence."""
    early_replies_wasted: int = 5
    """Hands-free: while this many more preemptive replies were dropped than used, a
    session begins no further one. 0: never begin a reply early.
    """
    write_ms: int = 10_000
    """A client that does not read for this long is cut off (promised)."""
    backlog_bytes: int = 8 * 1024 * 1024
    """A client whose unsent messages exceed this is cut off (promised)."""
    ahead_bytes: int = 1024 * 1024
    """Unsent audio past which the synthesiser waits: a long reply must not fill the
    backlog by itself.
    """
    frame_bytes: int = 1024 * 1024
    """One message (promised)."""
    control_bytes: int = 256 * 1024
    """One text message (promised)."""
    history_messages: int = 200
    """Messages of the conversation that are remembered; older ones are forgotten in
    pairs.
    """
    close_ms: int = 2_000
    """For the closing handshake and for each last write of a connection that is being
    cut off.
    """
    resume_ms: int = 30_000
    """How long a resumable recognition stream waits for its client to return
    (promised).
    """


def earliest_ms(*deadlines_ms: int | None) -> int | None:
    """Return the earliest; None stands for no deadline."""
    earliest: int | None = None
    for deadline_ms in deadlines_ms:
        if deadline_ms is not None and (earliest is None or deadline_ms < earliest):
            earliest = deadline_ms
    return earliest
