"""Objects into memory: what to ask for, who fetches it, what came of it, and its checksum."""
