"""Durable tasks: work that is written down before it is acknowledged, and done although
processes die.

`interface` is the seam; `dbos_store` keeps tasks with DBOS Transact in SQLite or
PostgreSQL; `liveness` tells which processes are dead, so that their tasks are taken
over; `on_demand` loads all of that when the first task comes.
"""
