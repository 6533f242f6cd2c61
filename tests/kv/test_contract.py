"""The real store keeps the contract."""

from dcosnet.testing.contracts.keyvalue import key_value_contract
from dcosnet.testing.store_rig import StoreRig


class TestKeyValue(key_value_contract(StoreRig)):
    """On a real journal in a directory of the test's own."""
