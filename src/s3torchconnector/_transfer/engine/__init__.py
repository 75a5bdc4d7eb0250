"""What all transfers share: byte ranges, memory and its budget, threads, many requests on one thread, a runtime."""
