"""Prefixes to pages of keys: one page after the other, or many at a time."""
