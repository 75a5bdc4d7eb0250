"""Nothing lost, nothing wrong, nobody hung: reads and saves while a share of all answers goes wrong."""
