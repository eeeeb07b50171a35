"""The webhooks that telephone providers call: what answers an incoming call, and where
it goes on. ``webhooks`` has the endpoints, ``answers`` what each provider reads,
``signatures`` how a provider's requests are known.
"""
