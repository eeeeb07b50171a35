"""Durable tasks: stored before they are acknowledged, and performed even if processes
die.

`interface` defines the store; `dbos_store` implements it with DBOS Transact on SQLite
or PostgreSQL; `liveness` detects dead processes, so that their tasks are taken over;
`on_demand` loads all of that when the first task is submitted.
"""
