"""``/docs``: the OpenAPI and AsyncAPI documents for people."""
