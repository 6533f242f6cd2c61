"""Configuration: several places merged, then read into settings types so that all errors come at once."""
