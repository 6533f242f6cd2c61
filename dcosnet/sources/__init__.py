"""Facts in: each source tells which tasks run."""
