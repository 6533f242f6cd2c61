"""The real store keeps the contracts."""

from pathlib import Path

from dcosnet.testing.contracts.keyvalue import key_value_contract
from dcosnet.testing.contracts.replica import replica_contract
from dcosnet.testing.memory_disk import MemoryDisk
from dcosnet.testing.store_rig import StoreRig


def in_memory(directory: Path) -> StoreRig:
    return StoreRig(directory, MemoryDisk(directory))


class TestKeyValue(key_value_contract(StoreRig)):
    """On a real journal in a directory of the test's own."""


class TestReplica(replica_contract(StoreRig)):
    """As gossip sees it."""


class TestKeyValueInMemory(key_value_contract(in_memory)):
    """On a disk in memory."""
