"""Where plugin descriptors are found; other distributions drop files into this package's path."""

from twisted.plugin import pluginPackagePaths

__path__.extend(pluginPackagePaths(__name__))
__all__: list[str] = []
