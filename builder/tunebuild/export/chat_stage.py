"""The ``chat`` stage: the tokenizer and the chat template as transformers and vLLM load them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from tunebuild.extras import library_version
from tunebuild.heavy_imports import heavy_imports
from tunebuild.store import Inputs, Progress, Tree

_RECORD = "template.json"


@dataclass(frozen=True, slots=True)
class ChatStage:
    """Writes the tokenizer's files and a chat template, if one gives the prompts of the training.

    Output: ``tokenizer/``, and ``template.json`` with what came of the template.

    Attributes:
        data: the data stage's output, for ``prompt/``.
        merged: the merge stage's, for ``config.json``, which names the tokenizer's class to transformers.
    """

    data: Tree
    merged: Tree
    name: str = "chat"
    version: int = 1

    def own(self) -> Inputs:
        """What renders the prompt for others."""
        return {"transformers": library_version("transformers")}

    def upstream(self) -> Inputs:
        """The prompt, and the configuration."""
        return {
            "prompt": {f.path: f.digest for f in self.data.files if f.path.startswith("prompt/")},
            "config": [f.digest for f in self.merged.files if f.path == "model/config.json"],
        }

    def run(self, work: Path, out: Path, progress: Progress) -> None:
        """Write, and compare with the golden vectors."""
        with heavy_imports():
            from tunebuild.export.chat_template import write_tokenizer

        folder, config = out / "tokenizer", out / "tokenizer" / "config.json"
        folder.mkdir()
        config.write_bytes(self.merged.path("model", "config.json").read_bytes())
        found = write_tokenizer(self.data.path("prompt"), folder)
        config.unlink()
        (out / _RECORD).write_text(json.dumps(asdict(found), indent=2) + "\n", "utf-8")
        if found.differs is None:
            progress.say(f"transformers gives {found.reproduced} golden prompts with it")
        else:
            progress.say(f"left out: transformers renders '{found.differs}' differently")
