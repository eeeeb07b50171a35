"""Every bound and time-out of a session, in one place. The project's own protocols
promise those marked (promised).
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionLimits:
    """Bounds of one session. All times are milliseconds, all sizes bytes."""

    idle_ms: int = 60_000
    """The longest time without any message of the client; then the connection is closed
    (promised).
    """
    speech_idle_ms: int = 60_000
    """The longest time without recognised speech while it is the user's turn, unless
    the client asked for unlimited silence (promised).
    """
    ping_ms: int = 20_000
    """How often the server pings the connection; the answer counts as a message."""
    protocol_errors: int = 100
    """This many malformed messages in a row close the connection (promised)."""
    turn_audio_ms: int = 900_000
    """The most audio of one turn, from its first recognised word (promised)."""
    unread_audio_ms: int = 60_000
    """The most audio that waits for the recogniser: beyond it the socket is not read,
    which slows a fast sender down.
    """
    transcript_ms: int = 10_000
    """The longest time from the end of the user's turn to the recogniser's last
    result.
    """
    first_token_ms: int = 15_000
    """The longest time from the request to the chat model to its first piece of text.
    Thoughts, keep-alives and empty pieces do not count as text.
    """
    between_tokens_ms: int = 10_000
    """The longest time between two pieces of text, or of thoughts, of the chat
    model.
    """
    thinking_ms: int = 120_000
    """The longest time from the chat model's first thought (``reasoning_content``) to
    its first piece of text.
    """
    tool_answer_ms: int = 30_000
    """The longest time from a tool call to the client's answer; then the model gets the
    answer that there is none, and continues.
    """
    tool_rounds: int = 8
    """How often the model may call tools of the client in one reply; then it must
    answer without tools.
    """
    speakable_wait_ms: int = 1_500
    """Text that has waited this long for the end of its sentence, while nothing is
    being spoken, is spoken as it is.
    """
    first_audio_ms: int = 5_000
    """The longest time from a sentence's start at the synthesiser to its first
    audio.
    """
    between_audio_ms: int = 5_000
    """The longest time between two pieces of audio of a sentence."""
    early_replies_wasted: int = 5
    """Hands-free: a session starts no preemptive reply while it has dropped this many
    more of them than it has used. 0: never start one.
    """
    write_ms: int = 10_000
    """The longest time without a read by the client; then the connection is cut
    (promised).
    """
    backlog_bytes: int = 8 * 1024 * 1024
    """The most unsent bytes; a client that exceeds them is disconnected (promised)."""
    ahead_bytes: int = 1024 * 1024
    """The unsent audio beyond which the synthesiser waits, so that a long reply cannot
    exceed the backlog by itself.
    """
    frame_bytes: int = 1024 * 1024
    """The largest message (promised)."""
    control_bytes: int = 256 * 1024
    """The largest text message (promised)."""
    history_messages: int = 200
    """The most messages in the history; the oldest are dropped in pairs."""
    close_ms: int = 2_000
    """The time limit for the closing handshake, and for each last write on a connection
    that is being cut.
    """
    resume_ms: int = 30_000
    """How long a resumable recognition stream waits for its client to return
    (promised).
    """


def earliest_ms(*deadlines_ms: int | None) -> int | None:
    """Return the earliest time. None stands for no deadline."""
    earliest: int | None = None
    for deadline_ms in deadlines_ms:
        if deadline_ms is not None and (earliest is None or deadline_ms < earliest):
            earliest = deadline_ms
    return earliest
