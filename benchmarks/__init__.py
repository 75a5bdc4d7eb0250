"""The benchmark: this connector, the native one (1.5.0), litdata and the limit of the machine, side by side.

`python -m benchmarks --help` explains how to run it. How it is built:

    cases.py      what is measured: one row each, with its goal
    servers/      nginx as S3: plain, S3-shaped, TLS, uploads, listing
    bucket.py     the same objects in a real bucket instead
    environments.py  virtual environments that hold other packages
    peer.py       that of the native connector
    litdata.py    that of litdata, and what litdata does
    runner.py     interleaved runs, each in a fresh process
    worker.py     that process: connector.py (ours and the peer) or limit.py (raw sockets), under meter.py
    distributed.py  distributed checkpoints by the worker and ranks.py: processes that it starts
    checkpoints.py  safetensors, Lightning and the checkpoint manager by the worker
    results.py    medians and ratios
    record.py     what was found, as it is stored: results/latest.json is the last whole run
    words.py      quantities in words
    report.py     the table on the terminal
    passages.py   the tables of the documents
    plot.py       the picture of the README
    figures.py    puts passages and picture into the documents, and checks them: `python -m benchmarks.figures`
    handwritten.py  finds speeds that figures.py did not write
    memory.py     resident memory against the documented formula: `python -m benchmarks.memory`
"""
