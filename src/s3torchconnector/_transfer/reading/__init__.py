"""Reads objects into memory: what to request, the fetching of it, its outcome, and its checksum."""
