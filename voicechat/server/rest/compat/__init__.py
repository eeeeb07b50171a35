"""The endpoints of other systems' documents, one folder each, over the services that
there are. ``[compat] documents`` names those that are answered.
"""
