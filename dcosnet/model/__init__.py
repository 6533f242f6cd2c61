"""Frozen values and pure rules that several subsystems share."""
