"""Other tools' configurations as specs: one file a tool, and an outcome for each of its keys."""

from tunebuild.importers.run import IMPORTERS, import_config

__all__ = ["IMPORTERS", "import_config"]
