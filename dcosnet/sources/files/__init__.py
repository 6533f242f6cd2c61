"""Services from TOML and JSON files in a folder that is watched."""
