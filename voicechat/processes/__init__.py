"""Child processes for work that would block the event loop, such as recognition that
holds the interpreter lock.

A `WorkerPool` keeps a fixed number of children warm and replaces those that die or
hang. Each child multiplexes several `Channel`s: bytes in, with backpressure, and bytes
out, in order. A `ChildJob` (`voicechat.processes.child`) processes the bytes of one
channel. Parent and child exchange length-prefixed frames over the child's standard
input and output (`voicechat.processes.frames`).
"""
