"""The DNS server: our own zones from ready answers, everything else forwarded."""
