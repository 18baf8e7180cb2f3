"""A spec's stages, each keyed by what the ones before it really wrote."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from tunebuild.build._base import SpecBase
from tunebuild.build._own_inputs import own_inputs
from tunebuild.build.description import bill_of, labels_of
from tunebuild.build.secret_scan import SecretScan
from tunebuild.data.prompt_source import build_renderer, check_variables
from tunebuild.data.source_files import SourceFiles
from tunebuild.data.stage import DataStage
from tunebuild.evaluate.exported import ExportedStage
from tunebuild.evaluate.stage import EvaluateStage
from tunebuild.evaluate.tasks import Task, read_tasks
from tunebuild.export.chat_stage import ChatStage
from tunebuild.export.stage import ExportStage
from tunebuild.export.tool import Tool
from tunebuild.image.bundle import BundleParts, bundle_digests
from tunebuild.image.oci.reference import ImageReference
from tunebuild.image.runtime import RuntimeStage, WantedRuntime, locked_runtime, runtime_layers
from tunebuild.image.sbom import Bill
from tunebuild.image.stage import ImageStage
from tunebuild.image.weights import WeightsStage, weight_digests
from tunebuild.lock.spec_lock import RuntimeLock, SpecLock
from tunebuild.merge.stage import MergeStage
from tunebuild.merge.strategies import Strategy, strategies_for
from tunebuild.models.base_model import BaseModel
from tunebuild.prompt import Renderer
from tunebuild.report.facts import Records
from tunebuild.serve.bundle import Bundle
from tunebuild.spec import LoadedSpec
from tunebuild.spec.canonical import effective
from tunebuild.spec.exports import ExportSpec
from tunebuild.spec.serving import DEFAULT_CONTEXT
from tunebuild.spec.serving_rules import engine_of
from tunebuild.store import Store, Tree, digest_json
from tunebuild.train.plan.hardware import decide
from tunebuild.train.plan.settings import Device, TrainSettings
from tunebuild.train.plan.shapes import count_parameters, read_tensors
from tunebuild.train.stage import TrainStage

if TYPE_CHECKING:
    from tunebuild.train.launch.together import Together


class Pipeline:
    """A spec's stages. Looks at files as it is asked, and downloads a hub model that is not here yet.

    Args:
        loaded: the spec.
        store: where stages are kept.
        lock: decides what is fetched.
        device: where training would run, for a plan; this machine decides if left out.
        device_memory: bytes of that device.

    Raises:
        TunebuildError: the base model or the prompt template cannot be used.
    """

    def __init__(
        self,
        loaded: LoadedSpec,
        store: Store,
        lock: SpecLock | None = None,
        device: Device | None = None,
        device_memory: int | None = None,
    ) -> None:
        self.loaded = loaded
        self.spec = loaded.spec
        self.store = store
        self.lock = lock
        self.device = device
        self.device_memory = device_memory
        self.hub_cache = store.root / "hub"

    @cached_property
    def bases(self) -> SpecBase:
        """Where the base model comes from."""
        return SpecBase(self.loaded, self.store, self.hub_cache, self.lock)

    @property
    def base(self) -> BaseModel:
        """The base that is trained; until the build has written its new control tokens, an outline of it."""
        return self.bases.files

    @property
    def published(self) -> BaseModel:
        """The base model's files as they are published."""
        return self.bases.published

    @cached_property
    def renderer(self) -> Renderer:
        """The prompt contract."""
        renderer = build_renderer(self.spec.prompt, self.base.directory, self.loaded.directory)
        names = enumerate(self.spec.serving.request_variables)
        check_variables(renderer.template, {n: f"serving.request_variables[{i}]" for i, n in names})
        return renderer

    def data(self) -> DataStage:
        """Rows to tokens."""
        data = self.spec.data
        files = SourceFiles(self.loaded.directory, self.hub_cache, self.lock, self.store.memo.digest)
        train = tuple(files.find(data.train, "data.train"))
        held_out = tuple(files.find(data.eval.files, "data.eval.files"))
        return DataStage(
            data=self.spec.data,
            train=train,
            held_out=held_out,
            file_digests=tuple(self.store.memo.digest(s.path) for s in (*train, *held_out)),
            renderer=self.renderer,
            tokenizer_dir=self.base.directory,
            max_length=self.spec.tuning.max_length,
            seed=self.spec.tuning.seed,
            vocabulary_size=self.base.vocabulary_size,
            new_tokens=self.spec.prompt.new_tokens,
        )

    def train(self, data: Tree, together: Together | None = None) -> TrainStage:
        """Tokens to an adapter, or to all weights."""
        return TrainStage(self.train_settings, data, self.base, together)

    @cached_property
    def train_settings(self) -> TrainSettings:
        """The tuning section, with what it leaves to the machine decided."""
        tuning, parameters = self.spec.tuning, 0
        if tuning.method == "auto":
            parameters = count_parameters(read_tensors(self.base.directory))
        settings = decide(tuning, self.device, base_parameters=parameters, memory=self.device_memory)
        if not self.spec.prompt.new_tokens:
            return settings
        ids = (self.renderer.tokenizer.token_id(token) for token in self.spec.prompt.new_tokens)
        return replace(settings, new_tokens=tuple(number for number in ids if number is not None))

    def merge(self, trained: Tree, strategy: Strategy | None = None) -> MergeStage:
        """What was trained, and the base, to a model; ``auto`` begins with what is closer as a rule."""
        return MergeStage(strategy or self.strategies[0], self.base, trained)

    @property
    def strategies(self) -> tuple[Strategy, ...]:
        """The merges that come into question, the likely one first."""
        return strategies_for(self.spec.merge, self.train_settings.tuning)

    @property
    def keeps_adapter(self) -> bool:
        """Whether the adapter stays beside the base's weights and is served with them."""
        if self.spec.tuning.method == "auto":
            # lora or qlora, whichever it comes to: a lock asks this before the base is here to decide it.
            return self.spec.merge.strategy == "none"
        return self.strategies == ("none",)

    def runtime(self) -> RuntimeStage:
        """The image's base and Python packages. Depends on no other stage."""
        cache = self.store.root / "downloads"
        return RuntimeStage.of(self.wanted_runtime, cache, self.locked_runtime)

    @property
    def engine(self) -> Literal["transformers", "vllm"]:
        """What runs the model in the image."""
        return engine_of(self.spec)

    @property
    def wanted_runtime(self) -> WantedRuntime:
        """What the image's base and Python packages must be; this machine's own have no say."""
        return WantedRuntime.of(
            self.spec.image.platform, self.spec.serving.device, self.engine, adapter=self.keeps_adapter
        )

    @property
    def locked_runtime(self) -> RuntimeLock | None:
        """What the lock says of the runtime, if it speaks of this platform and device."""
        locked = self.lock.runtime if self.lock else None
        wanted = (self.spec.image.platform, self.spec.serving.device)
        return locked if locked and (locked.platform, locked.device) == wanted else None

    def evaluate(
        self, data: Tree, trained: Tree, merged: Tree, strategy: Strategy | None = None
    ) -> EvaluateStage:
        """Base, trained and merged model to figures; the other merge's, too, if no strategy is settled."""
        return EvaluateStage(
            settings=self.train_settings,
            evaluation=self.spec.evaluation,
            tasks=self.tasks,
            base=self.base,
            strategies=(strategy,) if strategy else self.strategies,
            data=data,
            trained=trained,
            merged=merged,
        )

    def export(self, export: ExportSpec, records: Records, tool: Tool) -> ExportStage:
        """The merged model to one in fewer bits."""
        tuning = self.spec.tuning
        return ExportStage(export, records.merge, records.data, tuning.seed, self.train_settings.device, tool)

    def exported(self, export: ExportSpec, records: Records, model: Tree) -> ExportedStage:
        """That to figures, on the rows that the merged model was measured on."""
        return ExportedStage(export.name, self.train_settings, self.base, records.data, records.train, model)

    @cached_property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks that are done."""
        names, gated = self.spec.evaluation.tasks, self.spec.gates.tasks
        folder = self.loaded.folder
        return read_tasks(names, folder.path, self.store.memo.digest, gated, folder.others)

    def weights(self, merged: Tree) -> WeightsStage:
        """A model's weights to digests of layers."""
        return WeightsStage(merged)

    def chat(self, records: Records) -> ChatStage:
        """The prompt to a tokenizer and a chat template for other servers."""
        return ChatStage(records.data, records.merge)

    def image(self, records: Records, weights: Tree, runtime: Tree, chat: Tree) -> ImageStage:
        """Everything to an image."""
        return ImageStage(
            self.reference,
            BundleParts(
                self.settings_with(records),
                records.data,
                records.merge,
                records.train,
                records.evaluate,
                chat,
            ),
            runtime_layers(runtime),
            weight_digests(weights),
            records,
            labels_of(self.spec, self.settings),
            self.provenance,
            self.spec.image.platform,
            self.bill(records, runtime),
            SecretScan.of(self.spec),
        )

    def bill(self, records: Records, runtime: Tree) -> Bill:
        """What the image is made of."""
        return bill_of(
            self.spec,
            self.published,
            (self.lock.model if self.lock else None),
            self.data(),
            self.train_settings.tuning.method,
            records.merge,
            locked_runtime(runtime, self.wanted_runtime),
        )

    @property
    def provenance(self) -> dict[str, Any]:
        """The effective spec, each stage's own inputs, and the names of the files of rows."""
        return {
            "spec": effective(self.spec),
            "inputs": self.own_inputs,
            "sources": [source.shown for source in self.data().sources],
        }

    @property
    def reference(self) -> ImageReference:
        """The image's name."""
        return ImageReference.parse(self.spec.reference)

    @property
    def positions(self) -> int | None:
        """How many tokens the base has positions for, those that an adapter puts before a row left out."""
        return self.train_settings.left_of(self.base.positions)

    @property
    def context(self) -> int:
        """Longest prompt and answer together; if the spec leaves it out, at most what the base has."""
        wanted = self.spec.serving.limits.context
        return wanted or min(DEFAULT_CONTEXT, self.positions or DEFAULT_CONTEXT)

    @cached_property
    def settings(self) -> Bundle:
        """What the endpoint is told."""
        spec = self.spec
        serving = spec.serving.model_dump(mode="json")
        serving["limits"]["context"] = self.context
        serving["engine"] = self.engine
        return Bundle.model_validate(
            {
                "name": spec.name,
                "description": spec.description,
                "prompt_digest": self.renderer.digest,
                "spec_digest": digest_json(effective(spec)),
                "adapter": self.keeps_adapter,
                **serving,
            }
        )

    def settings_with(self, records: Records) -> Bundle:
        """What the endpoint is told, with the digests of what it must have beside it."""
        return self.settings.model_copy(update=bundle_digests(records, adapter=self.keeps_adapter))

    @cached_property
    def own_inputs(self) -> dict[str, Any]:
        """What each stage depends on besides what earlier stages hand it."""
        return own_inputs(self)
