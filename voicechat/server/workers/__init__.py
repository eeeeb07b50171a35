"""Several server processes behind one port, so that all cores are used.

The parent (`supervisor`) accepts every connection and hands it to the worker with the
fewest; it reads nothing of it. Letting the kernel choose by SO_REUSEPORT needs less
code, but it chooses at random: of a few long conversations too many meet on one core,
and what waits in the queue of a process that is killed is lost. Measured:
docs/deploying.md.

A worker (`child`) is a whole server that does not listen. What the workers must know in
common lies in the `voicechat.store.ledger`. Parent and worker speak over a socket pair
(`link`) that can carry connections.
"""
