"""How Sphinx builds this documentation: plain pages, nothing imported."""

project = "dcosnet"
author = "the dcosnet authors"
copyright = "2026, the dcosnet authors"  # noqa: A001 - Sphinx's name for it
extensions: list[str] = []
exclude_patterns = ["_build"]
html_theme = "alabaster"
html_theme_options = {"description": "Names and virtual addresses for a fleet of hosts", "page_width": "60rem"}
html_copy_source = False
