"""How far drains have come on this node, told to all."""
