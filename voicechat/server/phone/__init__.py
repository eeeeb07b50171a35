"""The webhooks that telephone providers call to learn what answers an incoming call and
where it continues. ``webhooks`` has the endpoints, ``answers`` the answers in each
provider's form, ``signatures`` the checks of each provider's signature.
"""
