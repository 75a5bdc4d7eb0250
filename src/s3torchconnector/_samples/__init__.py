"""Samples that are not one whole object: what they consist of, and how they become what a transform gets."""
