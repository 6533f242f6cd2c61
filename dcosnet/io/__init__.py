"""The operating system, and what pumps the cores."""
