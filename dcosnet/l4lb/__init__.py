"""Layer 4 VIPs: which address a name gets, who answers there, and the zone that says so."""
