"""Prefixes into pages of keys: one after the other, or many at a time."""
