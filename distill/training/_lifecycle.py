"""The life of a training: one at a time, in a thread of its own, ended between steps, whole or not there at all.

What is learnt is the method's business; the adapter's folder, manifest and probe come from here.
"""

from __future__ import annotations

import math
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from divcon.distill._card import CARD, model_card
from divcon.distill._files import unfinished
from divcon.distill._manifest import (
    Manifest,
    content_hash,
    file_hashes,
    manifest_for,
    package_versions,
    prompt_hash,
    template_hash,
)
from divcon.distill._probe import PROBE_CANDIDATES, ProbeRow, choose_probe
from divcon.distill.serving.embedded import LOADING, Base, Precision, free_memory, precision
from divcon.distill.training._checkpoints import Checkpoints
from divcon.distill.training._errors import TrainingError, TrainingStopped, in_file
from divcon.distill.training._isolation import in_own_thread, quiet, random_numbers_left_alone, sound_attention
from divcon.distill.training._methods import METHODS, TrainerParts
from divcon.distill.training._preflight import Preflight, tokenized
from divcon.distill.training._rows import read_export, read_rows, rows_hash
from divcon.distill.training._settings import TrainSettings
from divcon.distill.training._training import Provenance, Training

Progress = Callable[[int, int, float], None]

# Padding included, so many tokens are computed at once on a CPU. 16 rows of 300 tokens and 135M parameters took 8.6 GB;
# in two halves they took 4.9 GB and a quarter less time.
_TOKENS_AT_ONCE = 4096

_TRAINING = threading.Lock()


def train_adapter(
    training: Training,
    provenance: Provenance | None = None,
    *,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> Manifest:
    """Train a LoRA adapter on exported rows and write it with its manifest.

    A run that was stopped goes on from its last checkpoint; the adapter appears in its folder only when it is whole.

    Args:
        training: What is trained, and on what.
        provenance: What is recorded besides; a decomposer without a name by default.
        progress: Called with (steps done, steps in all, loss of the last step).
        stop: Ends the training after the step under way, with a checkpoint, when it is set.

    Returns:
        The manifest, as written.

    Raises:
        TrainingError: See `preflight`; also a loss or a gradient that isn't finite.
        TrainingStopped: `stop` was set.
        ManifestError: The adapter to go on from is of another base.
    """
    watch = _Watch(stop or threading.Event(), progress)

    def work() -> Manifest:
        # One at a time: trainer, accelerator and random numbers belong to the whole process.
        while not _TRAINING.acquire(timeout=0.2):
            if watch.stop.is_set():
                raise TrainingStopped("Training was stopped before its turn came.", "Start it again.")
        try:
            with random_numbers_left_alone():
                prepared = _prepare(training)
                return _write(training, provenance or Provenance(), prepared, _run(training, prepared, watch))
        finally:
            free_memory()
            _TRAINING.release()

    return in_own_thread(work, watch.stop)


@dataclass(frozen=True)
class _Watch:
    """Who follows a training from outside."""

    stop: threading.Event
    progress: Progress | None


@dataclass(frozen=True)
class _Prepared:
    """A training's rows and what they were read with."""

    source: list[dict[str, Any]]
    ready: Preflight
    data_hash: str
    tokenizer: Any
    precision: Precision
    before: Manifest | None  # of the adapter to go on from

    @property
    def template_hash(self) -> str:
        return template_hash(self.tokenizer)


@dataclass(frozen=True)
class _Trained:
    """A trainer after its last step."""

    trainer: Any
    checkpoints: Checkpoints
    resumed_from: str | None
    losses: list[float]
    seconds: float


def _prepare(training: Training) -> _Prepared:
    before = manifest_for(training.start, training.base) if training.start is not None else None
    method = METHODS[training.settings.only_method]
    with LOADING:
        from transformers import AutoTokenizer

    source = read_rows(training.rows)
    tokenizer = AutoTokenizer.from_pretrained(training.base.path)
    return _Prepared(
        source=source,
        ready=method.prepare(source, tokenizer, training.settings),
        data_hash=rows_hash(training.rows),
        tokenizer=tokenizer,
        precision=precision(training.settings.precision),
        before=before,
    )


def _run(training: Training, prepared: _Prepared, watch: _Watch) -> _Trained:
    """Train, from the last checkpoint on where there is one."""
    from transformers import PrinterCallback

    settings = training.settings
    model, lora = _model(training, prepared)
    checkpoints = Checkpoints(training.output, _made_from(training, prepared))
    rows = len(prepared.ready.rows)
    steps = settings.steps(rows)
    parts = TrainerParts(
        model=model,
        lora=lora,
        tokenizer=prepared.tokenizer,
        rows=prepared.ready.rows,
        arguments=_arguments(settings, steps, prepared, checkpoints.folder),
        callbacks=[_callback(watch, steps, settings.steps_a_pass(rows), checkpoints)],
    )
    with quiet():
        with LOADING:
            trainer = METHODS[settings.only_method].trainer(parts)
            trainer.remove_callback(PrinterCallback)
        resumed_from = checkpoints.last()
        with sound_attention():
            trainer.train(resume_from_checkpoint=resumed_from)
    done = trainer.state.global_step
    if not _is_finite(trainer.state.log_history):
        checkpoints.remove()
        raise TrainingError(
            f"Training broke down at step {done} of {steps}: its loss or its gradient isn't finite.",
            f"Lower {in_file('learning_rate')}, or compute with more digits: {in_file('precision')} float32.",
        )
    if watch.stop.is_set() and done < steps:
        raise TrainingStopped(f"Training was stopped after step {done} of {steps}.", "Start it again to go on.")
    seconds = checkpoints.seconds()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    _require_learnt(trainer.model, losses)
    return _Trained(trainer, checkpoints, resumed_from, losses, seconds)


def _model(training: Training, prepared: _Prepared) -> tuple[Any, Any]:
    """The base and the configuration of a new adapter for it, or the base with the adapter to go on from."""
    with LOADING:
        import torch
        from peft import LoraConfig, PeftModel
        from transformers import AutoModelForCausalLM

    # Weights of the base stay in float32 on a CPU: under autocast that is faster there than bfloat16 weights.
    stored = torch.bfloat16 if torch.cuda.is_available() and prepared.precision == "bfloat16" else torch.float32
    with LOADING:
        model = AutoModelForCausalLM.from_pretrained(training.base.path, dtype=stored)
        if training.start is not None:
            return PeftModel.from_pretrained(model, str(training.start), is_trainable=True), None
    settings = training.settings
    return model, LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha or 2 * settings.rank,
        target_modules="all-linear",  # without the output layer, which small models tie to the embeddings
        task_type="CAUSAL_LM",
    )


def _made_from(training: Training, prepared: _Prepared) -> dict[str, Any]:
    """What must be unchanged for a training to resume from a checkpoint."""
    return {
        "data": prepared.data_hash,
        "settings": training.settings.deciding(),
        "base": [training.base.id, training.base.revision],
        "template": prepared.template_hash,
        **({"start": prepared.before.content_hash} if prepared.before else {}),
        **({"precision": prepared.precision} if prepared.precision != "bfloat16" else {}),
    }


def rows_at_once(batch_size: int, longest: int) -> int:
    """How many rows of a step a CPU computes at once: all of them, or a whole part where they are long.

    Args:
        batch_size: Rows a step.
        longest: The tokens of the longest row.
    """
    parts = (size for size in range(batch_size, 1, -1) if batch_size % size == 0)
    return next((size for size in parts if size * longest <= _TOKENS_AT_ONCE), 1)


def _arguments(settings: TrainSettings, steps: int, prepared: _Prepared, folder: Path) -> dict[str, Any]:
    """What is the same for every trainer, as `transformers.TrainingArguments` takes it."""
    import torch

    cuda, rows = torch.cuda.is_available(), settings.batch_size
    at_once = rows if cuda else rows_at_once(rows, prepared.ready.longest)
    return {
        "output_dir": str(folder),
        "max_steps": steps,
        "per_device_train_batch_size": at_once,
        "gradient_accumulation_steps": rows // at_once,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "linear",
        "warmup_steps": steps // 20,  # the first step of a warm-up has no learning rate; a single step needs one
        "bf16": prepared.precision == "bfloat16",
        "use_cpu": not cuda,
        "dataloader_pin_memory": cuda,
        # On two cores the backward pass is what costs; recomputing the forward one to save memory doubles it.
        "gradient_checkpointing": cuda,
        "logging_steps": 1,
        "logging_first_step": True,
        # By default a loss of NaN is logged as the mean of those before it, or as 0.
        "logging_nan_inf_filter": False,
        "save_strategy": "steps",
        "save_steps": settings.save_every,
        "save_total_limit": 1,
        "report_to": [],
        "disable_tqdm": True,
        "seed": settings.seed,
    }


def _callback(watch: _Watch, steps: int, each_pass: int, checkpoints: Checkpoints) -> Any:
    from transformers import TrainerCallback

    class Watching(TrainerCallback):
        def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            checkpoints.begin_pass(state.global_step // each_pass)

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if watch.stop.is_set() and state.global_step < steps:
                control.should_save = control.should_training_stop = True

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            checkpoints.saved()
            if state.global_step % each_pass == 0:
                checkpoints.begin_pass(state.global_step // each_pass)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if not _is_finite([logs or {}]):
                control.should_save, control.should_training_stop = False, True
            elif logs and "loss" in logs and watch.progress:
                watch.progress(state.global_step, steps, logs["loss"])

    return Watching()


def _is_finite(logs: list[dict[str, Any]]) -> bool:
    """Whether every loss, and every norm of a gradient, in a trainer's logs is finite."""
    return all(math.isfinite(log.get(name, 0.0)) for log in logs for name in ("loss", "grad_norm"))


def _require_learnt(model: Any, losses: list[float]) -> None:
    if not losses:
        raise TrainingError("Training took no step.", f"Check {in_file('epochs')} and the number of rows.")
    if not any(bool(p.any()) for name, p in model.named_parameters() if "lora_B" in name):
        raise TrainingError(
            "Training has changed nothing.", f"Raise {in_file('epochs')} or {in_file('learning_rate')}."
        )


def _write(training: Training, provenance: Provenance, prepared: _Prepared, trained: _Trained) -> Manifest:
    """Write adapter, manifest and probe beside the output, and put them there at once."""
    output = training.output
    building = unfinished(output)
    try:
        manifest = _write_into(building, training, provenance, prepared, trained)
        shutil.rmtree(output, ignore_errors=True)
        building.rename(output)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    trained.checkpoints.remove()
    return manifest


def _write_into(
    building: Path, training: Training, provenance: Provenance, prepared: _Prepared, trained: _Trained
) -> Manifest:
    """Write adapter, manifest and probe into a folder."""
    model = trained.trainer.model
    _save(model, building, training.base)
    exported = read_export(training.rows)
    screening = provenance.screening if provenance.screening is not None else exported.screening if exported else {}
    manifest = Manifest(
        role=provenance.role,
        student=provenance.student,
        base={"id": training.base.id, "revision": training.base.revision, "dtype": training.base.dtype},
        prompt_hash=prompt_hash([row["prompt"] for row in prepared.source]),
        prompt=exported.prompt if exported else {},
        messages=exported.messages if exported else _instruction(prepared.source[0]),
        chat_template_hash=prepared.template_hash,
        data_hash=prepared.data_hash,
        data=dict(provenance.data),
        rows=len(prepared.ready.rows),
        screening=screening,
        settings=training.settings.model_dump(),
        precision=prepared.precision,
        result=_result(prepared, trained),
        teacher=provenance.teacher,
        versions=package_versions(),
        allowed_overlap=[one._asdict() for one in provenance.allowed_overlap],
        content_hash=content_hash(building),
        files=file_hashes(building),
    )
    manifest.write(building)
    (building / CARD).write_text(model_card(manifest), encoding="utf-8")
    with LOADING:
        _probe(model, prepared, training.settings.max_length).write(building)
    return manifest


def _save(model: Any, folder: Path, base: Base) -> None:
    """Write the adapter's weights and configuration.

    Raises:
        TrainingError: There is no room for them.
    """
    from safetensors import SafetensorError

    # A public name, not this machine's path, stands in the adapter's configuration.
    model.peft_config["default"].base_model_name_or_path = base.id
    try:
        model.save_pretrained(folder, save_embedding_layers=False, selected_adapters=["default"])
    except SafetensorError as error:  # what a full disk comes out as
        raise TrainingError(
            f"The adapter can't be written to {folder}: {error}.", "Make room; training goes on where it was."
        ) from error


def _instruction(row: Mapping[str, Any]) -> list[dict[str, str]]:
    """The messages of a row's prompt that don't depend on its question."""
    return [message for message in row["prompt"] if message["role"] == "system"]


def _result(prepared: _Prepared, trained: _Trained) -> dict[str, Any]:
    losses = trained.losses
    return {
        "steps": trained.trainer.state.global_step,
        "first_loss": round(losses[0], 4),
        # Over the last quarter: rows come grouped by length, and single steps differ more than they fall.
        "last_loss": round(mean(losses[-max(5, len(losses) // 4) :]), 4),
        "seconds": round(trained.seconds, 1),
        "resumed_from": Path(trained.resumed_from).name if trained.resumed_from else None,
        **({"started_from": prepared.before.served_name} if prepared.before else {}),
        **{key: value for key, value in asdict(prepared.ready).items() if key != "rows"},
    }


def _probe(model: Any, prepared: _Prepared, longest: int) -> ProbeRow:
    """The row that proves the adapter where it is served, out of the first few that were trained on."""
    found = []
    for number, row in enumerate(prepared.source, 1):
        prompt, reply = tokenized(row, prepared.tokenizer, number)
        if len(prompt) + len(reply) <= longest:
            found.append((row, prompt, reply))
        if len(found) == PROBE_CANDIDATES:
            break
    return choose_probe(model, found, prepared.precision)
