"""Several server processes behind one port, so that all cores are used.

The parent (`supervisor`) accepts every connection and sends it, unread, to the worker
with the fewest connections. SO_REUSEPORT would need less code, but the kernel then
chooses at random: with a few long conversations, too many land on one core, and the
connections in the accept queue of a killed process are lost. Measurements:
docs/deploying.md.

A worker (`child`) is a whole server that does not listen. State that the workers share
is in the `voicechat.store.ledger`. Parent and worker communicate over a socket pair
(`ipc_channel`) that can carry connections.
"""
