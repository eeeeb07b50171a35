"""Child processes for work that would stop the event loop: recognition that holds the
interpreter lock, and the like.

A `WorkerPool` keeps some children warm and replaces the ones that die or hang. Each
child carries several `Channel`s at once: bytes go in with back-pressure, bytes come
out, in order. What a child does with them is a `Job` (`voicechat.processes.child`). The
two sides exchange length-prefixed frames over the child's standard input and output
(`voicechat.processes.frames`).
"""
