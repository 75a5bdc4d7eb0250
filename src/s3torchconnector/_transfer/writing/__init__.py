"""Bytes into objects: parts, uploads and their end, conditions, and what nobody finished."""
