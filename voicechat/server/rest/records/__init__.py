"""The endpoints of records and of usage."""
