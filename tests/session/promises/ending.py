"""A session that has ended holds nothing and waits for nothing."""

from tests.session.promises.promise import Promise


class SessionEnd(Promise):
    corners = (
        "DrainRequested in REPLYING",
        "Disconnected in REPLYING",
        "AudioSent in LISTENING",
        "Played in LISTENING",
    )

    def always(self) -> None:
        if self.world.over:
            assert all(how == "gone" for how in self.world.streams.values())
            assert not any(made.live for made in self.world.replies.values())
            assert self.world.session.deadline_ms() is None
