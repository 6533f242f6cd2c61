"""
A cluster on one CPU, in time of its own, that fails as it is told to.

Public: whoever writes an extension of the gossip layer can try it here. The
cores and the store are the real ones; clock, network, disks and processes are
models. The same seed gives the same run, event by event.
"""
