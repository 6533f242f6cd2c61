"""What people and programs see of a node: HTTP, metrics, readiness, the manhole, the demonstration."""
