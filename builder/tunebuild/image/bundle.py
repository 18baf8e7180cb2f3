"""Lays out the directory that the server reads: settings, prompt, weights, what the engine must reproduce,
and the adapter if it is apart.

Only links are made; the files stay where the stages wrote them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tunebuild.report.facts import Records
from tunebuild.serve.bundle import ADAPTER_FILES, Bundle, adapter_digest
from tunebuild.serve.bundle import PARITY_FILE as PARITY
from tunebuild.store import Digest, Tree, TreeFile


def bundle_digests(records: Records, *, adapter: bool) -> dict[str, str]:
    """Fields of ``bundle.json`` that hold the server to the files that belong to it."""
    parity = next((f.digest for f in records.evaluate.files if f.path == PARITY), "")
    found = {"parity_digest": str(parity)}
    if adapter:
        digests = {f.path: f.digest for f in records.train.files}
        found["adapter_digest"] = adapter_digest({n: digests[f"adapter/{n}"] for n in ADAPTER_FILES})
    return found


@dataclass(frozen=True, slots=True)
class BundleParts:
    """Where a bundle's parts are.

    Attributes:
        settings: becomes ``bundle.json``.
        data: the data stage's output, for ``prompt/``.
        merged: the merge stage's output, for ``model/``.
        trained: the train stage's output, for ``adapter/`` if the settings have one.
        evaluated: the evaluate stage's output, for ``parity.json``.
        chat: the chat stage's output: the tokenizer and the chat template as others load them.
    """

    settings: Bundle
    data: Tree
    merged: Tree
    trained: Tree
    evaluated: Tree
    chat: Tree

    @property
    def parity(self) -> Digest | None:
        """Digest of ``parity.json``, if there is one."""
        return next((f.digest for f in self.evaluated.files if f.path == PARITY), None)

    @property
    def adapter(self) -> tuple[TreeFile, ...]:
        """Files of ``adapter/``; none if the adapter is in the weights."""
        if not self.settings.adapter:
            return ()
        return tuple(f for f in self.trained.files if f.path.startswith("adapter/"))

    def lay_out(self, directory: Path, settings: Path) -> None:
        """Make the bundle in an empty directory.

        Args:
            directory: where.
            settings: the image stage's output, with ``bundle.json``, ``build/`` and ``chat/``. It must
                outlive the directory, since plans point at it.
        """
        (directory / "bundle.json").symlink_to((settings / "bundle.json").resolve())
        (directory / "build").symlink_to((settings / "build").resolve())
        (directory / "prompt").symlink_to(self.data.path("prompt").resolve())
        (directory / "model").symlink_to(self.merged.path("model").resolve())
        (directory / "tokenizer").symlink_to(self.chat.path("tokenizer").resolve())
        (directory / "chat").symlink_to((settings / "chat").resolve())
        if self.parity:
            (directory / PARITY).symlink_to(self.evaluated.path(PARITY).resolve())
        if self.settings.adapter:
            (directory / "adapter").symlink_to(self.trained.path("adapter").resolve())
