"""Written bytes to objects: parts, uploads and their end, write conditions, and abandoned uploads."""
