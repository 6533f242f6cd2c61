"""One suite for each interface: whatever provides it passes."""
