"""Validation of requests: models with checked fields, and JSON within limits. Shared by
dialects and REST.
"""
