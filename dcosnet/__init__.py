"""Names, virtual addresses and load balancing for a fleet of hosts, in one process per host."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("dcosnet")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
