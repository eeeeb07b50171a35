"""Whether conversations survive what happens to a cluster: real servers behind a real
HAProxy, and users who talk through the Python client.
"""
