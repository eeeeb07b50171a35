"""The endpoints of other systems' documents, one folder each, on the configured
services. ``[compat] documents`` lists the documents that are served.
"""
