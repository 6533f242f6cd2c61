"""Services that programs register for a while, over the UNIX socket of the API."""
