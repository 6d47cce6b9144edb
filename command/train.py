"""Runs: `python main.py --model X --dataset Y`. Checks everything first, makes what stages must have made, then trains,
and leaves a run folder per seed.
"""

from __future__ import annotations

import gc
import hashlib
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from setproctitle import setproctitle
from torch import nn

import backbone as backbones
from backbone.products import Stage, data_of, input_shape, open_dataset, stages_of
from command.dry_run import dry_run
from command.sketch import check_sizes
from datasets.base import Dataset
from utils import device as devices
from utils import plan as plans
from utils.contracts import Found, Images, Places
from utils.data import features
from utils.data.listing import read_class_order
from utils.errors import UsageError
from utils.files.disk import check_writable, waiting, writable_folder
from utils.files.manifest import changed_files, read_manifest, write_manifest
from utils.files.tensors import tensors_sha256
from utils.plan import Plan
from utils.runs import checkpoint, identity, loggers, resume, signals
from utils.runs.cores import Cores
from utils.runs.description import Description
from utils.runs.folder import RunFolder, export_complete
from utils.runs.progress import Progress
from utils.runs.saving import Saving
from utils.runs.summary import Summary
from utils.streams import make_stream, own_options
from utils.streams.base import TaskList
from utils.training.assembly import assemble, read_images, with_fitting_period
from utils.training.loop import Trainer
from utils.training.metrics import mean_entropies

CARRIED = ("device", "checkpoint_dir", "results", "plugins", "save_every", "on_nan")  # from a run to its stages


def command(plan: Plan, cores: Cores) -> None:
    """All runs of a command line: prints the folder of each, or what it would do."""
    with signals.obeyed():
        if plan.run.dry_run:
            print(dry_run(plan))
            return
        for folder in run_all(plan, cores):
            print(folder, flush=True)


@dataclass(frozen=True)
class Job:
    """A run that has been checked. dataset: of the whole program, so that its files are listed once. found: what it
    found. stages: whose products the run reads."""

    plan: Plan
    dataset: Images
    places: Places
    found: Found
    stages: list[Stage]

    def class_order(self) -> list[int] | None:
        tasks = self.plan.tasks
        if tasks is None:
            return None
        return read_class_order(tasks.class_order, self.dataset.num_classes, self.found.class_names)

    def settings(self) -> dict:
        """Config of the run, but for what it reads."""
        return identity.config(self.plan)


def run_all(plan: Plan, cores: Cores) -> Iterator[Path]:
    """The folders of the runs of a plan, one per seed. All that can be wrong is found before anything is trained."""
    job = check(plan.with_seed(plan.seeds()[0]))
    for seed in plan.seeds():
        refuse_other_content(replace(job, plan=plan.with_seed(seed)))
    if not all(map(is_made, job.stages)):
        for train in parts_read(plan):  # decoded once, and now: a bad image is not to be found after hours
            job.dataset.load(job.places, train)
    for stage in job.stages:
        make_product(stage, plan, cores)
    for number, seed in enumerate(plan.seeds()):
        if number or job.stages:
            gc.collect()  # what matplotlib keeps of a picture holds the run that drew it, and its memory, in a circle
        yield run(replace(job, plan=plan.with_seed(seed)), cores)


# Checked before anything is trained


def check(plan: Plan, to_come: Sequence[Stage] = ()) -> Job:
    """Looks at all that a run and its stages need: options, data, weights, places. Reads no image, trains nothing.

    to_come: stages before this one, whose products need not be there yet. Raises UsageError.
    """
    options = plan.run
    devices.pick(options.device)
    check_writable(Path(options.results), "--results")
    if options.resume not in ("auto", "never"):
        resume.refuse_another(Path(options.resume), identity.config(plan), "has other settings")
    if folder := folder_to_fill(plan):
        check_writable(folder, "--save_to")
    dataset, places = open_dataset(plan)
    stages = stages_of(plan)  # which may refuse the network: before weights are wanted
    weights: list[Path | None] = [None]
    if not is_to_come(options.backbone_path, to_come):
        weights = backbones.weights_files(options.backbone, options.backbone_path, options.checkpoint_dir)
    found = dataset.survey(places, test=False in parts_read(plan))
    job = Job(plan, dataset, places, found, stages)
    job.class_order()
    for k, stage in enumerate(stages):
        if not is_made(stage):
            refuse_other_network(job, stage, check_stage(stage, plan, stages[:k]))
    if found.counts is not None:
        missing = [stage for stage in (*to_come, *stages) if not stage.output.exists()]
        check_sizes(plan, dataset, found.counts, places.size, weights, missing)
    return job


def check_stage(stage: Stage, plan: Plan, before: Sequence[Stage]) -> Job:
    """`check` of a stage that is to be run. Its complaints name options that the caller may not have."""
    check_writable(Path(plan.run.checkpoint_dir), "--checkpoint_dir")
    try:
        return check(stage_plan(stage, plan), before)
    except UsageError as error:
        raise UsageError(
            f"{plan.run.model} needs a run of {stage.model} on {stage.dataset}, which is not possible: {error}; "
            f"run main.py --model {stage.model} with other options and --save_to DIR, and name its product by "
            f"--{stage.option}"
        ) from None


def refuse_other_network(job: Job, stage: Stage, made: Job) -> None:
    """Raises UsageError if a stage learns on samples of another size than the run has, and its weights would not fit.
    made: the stage. Kernels see any number of channels, positions are resized."""
    shapes = [input_shape(each.dataset, each.places.size) for each in (job, made)]
    with torch.device("meta"):
        own, other = (backbones.build(job.plan.run.backbone, shape).state_dict() for shape in shapes)
    if any(weights.ndim == 2 and weights.shape != other[name].shape for name, weights in own.items()):
        here, there = ("x".join(map(str, shape)) for shape in shapes)
        raise UsageError(
            f"{job.plan.run.model} needs a run of {stage.model} on {stage.dataset}, whose samples are {there}, and "
            f"those of {job.plan.run.dataset} are {here}, so that {job.plan.run.backbone} would not fit; name another "
            f"dataset by --pretrain, or a product by --{stage.option}"
        )


def parts_read(plan: Plan) -> tuple[bool, ...]:
    """Which parts of its dataset a run reads: True for training, False for test."""
    return (True, False) if plan.method.evaluated and not plan.run.validation else (True,)


def is_to_come(path: str | None, stages: Sequence[Stage]) -> bool:
    return any(path == str(stage.output) and not stage.output.exists() for stage in stages)


def refuse_other_content(job: Job) -> None:
    """Raises UsageError if `--resume` asks for a run that read something else, as far as that can be known before its
    stages are made."""
    options, here = job.plan.run, job.settings()
    if options.resume == "never" or (options.resume == "auto" and not resume.candidates(options.results, here)):
        return
    resume.begun_run(options, with_content(job, so_far=True))


# What a run reads


def with_content(job: Job, so_far: bool = False) -> dict:
    """Config of the run with SHA-256 of all that decides what it computes: data, weights, products.

    so_far: of what is there already.
    """
    plan, options = job.plan, job.plan.run
    read: dict[str, str | None] = {
        f"data.{'train' if train else 'test'}": content_of(job, train) for train in parts_read(plan)
    }
    read["run.backbone_path"] = backbones.fingerprint(options.backbone, options.backbone_path, options.checkpoint_dir)
    if order := job.class_order():
        read["run.class_order"] = hashlib.sha256(repr(order).encode()).hexdigest()
    to_come = tuple(str(stage.output.parent) for stage in job.stages if not is_made(stage)) if so_far else ()
    return identity.config(plan, {**read, **identity.option_digests(plan, to_come)})


def content_of(job: Job, train: bool) -> str | None:
    """SHA-256 of a part of the data; what is drawn on first use is drawn for it."""
    if (digest := job.dataset.digest(job.places, train)) is None:
        job.dataset.load(job.places, train)
        digest = job.dataset.digest(job.places, train)
    return digest


# Stages and their products


def stage_plan(stage: Stage, plan: Plan) -> Plan:
    """The run of a stage that the run of `plan` needs."""
    given = {name: getattr(plan.run, name) for name in CARRIED}
    given["resume"] = "never" if plan.run.resume == "never" else "auto"
    return plans.make(given | stage.options | {"model": stage.model, "dataset": stage.dataset}).with_seed(1)


def is_made(stage: Stage) -> bool:
    """Whether the product of a stage is there, whole. Raises UsageError if it is not what the stage left."""
    folder = stage.output.parent
    digests = read_manifest(folder)
    if stage.output.name not in digests:  # the stage was stopped before it had written all of its files
        return False
    if changed := changed_files(folder, digests):
        raise UsageError(
            f"{folder}: {', '.join(changed)}: not as {stage.model} left it; remove the folder, the stage is repeated"
        )
    return True


def make_product(stage: Stage, plan: Plan, cores: Cores) -> None:
    """Runs a stage, unless another process does; then waits for it. plan: of the run that needs it."""
    folder = stage.output.parent
    if is_made(stage):
        if data_of(folder) is None:
            print(f"note: {folder} does not say which data it was made from; taken as it is", file=sys.stderr)
        elif stage.data is None:
            print(f"note: {folder} is taken as it is, its data are not here to compare", file=sys.stderr)
        return
    writable_folder(folder, "--checkpoint_dir")
    with waiting(folder / ".lock", f"makes {stage.output}", keep=False):
        if is_made(stage):
            job = check(stage_plan(stage, plan))
            here, made_from = job.dataset.digest(job.places, train=True), data_of(folder)
            if None not in (here, made_from) and here != made_from:
                raise UsageError(
                    f"{folder}: another process has just made it from other data; start the same command again, which "
                    "then makes one of its own"
                )
            return
        why = "is there without its manifest, so it may be unfinished" if stage.output.exists() else "is not there yet"
        print(f"{stage.output} {why}; making it with {stage.model} on {stage.dataset}", file=sys.stderr)
        run(check(stage_plan(stage, plan)), cores, again=True)


def save_folder(plan: Plan) -> Path | None:
    """Where the run is to leave its product: `--save_to`, a folder, or a file of a method that is no stage."""
    save_to = getattr(plan.method_args, "save_to", None)
    return Path(save_to) if save_to else None


def folder_to_fill(plan: Plan) -> Path | None:
    """The folder in which the run leaves its product."""
    save_to = save_folder(plan)
    return save_to if save_to is None or plan.method.product(plan.method_args) else save_to.parent


def is_saved(plan: Plan) -> bool:
    """Whether `--save_to`, if it is given, holds what the run leaves there."""
    save_to, product = save_folder(plan), plan.method.product(plan.method_args)
    if save_to is None or product is None:
        return save_to is None or save_to.exists()
    digests = read_manifest(save_to)
    return product in digests and not changed_files(save_to, digests)


# One run


def run(job: Job, cores: Cores, again: bool = False) -> Path:
    """One run, whose stages have been made; gives its folder. again: it is a stage, run even if it is complete."""
    options = job.plan.run
    done = None if again else resume.complete_run(options, job.settings(), lambda: with_content(job))
    if done is not None and not is_saved(job.plan):
        print(f"{done} is this run, complete, but --save_to lacks what it leaves; repeated", file=sys.stderr)
    elif done is not None:
        print(f"{done} is this run, complete; not repeated", file=sys.stderr)
        if options.export == "pth":
            export(job, done)
        return done
    setproctitle(f"{options.model} {options.dataset} seed{options.seed}")
    try:
        return train(job, cores, again)
    except (RuntimeError, MemoryError) as error:
        if not devices.out_of_memory(error):
            raise
        sizes = f"--batch_size {options.batch_size}, --eval_batch_size {options.eval_batch_size}"
        raise MemoryError(
            f"out of memory with {sizes} and --precision {options.precision}; try smaller ones, or --precision bf16"
        ) from error


def export(job: Job, folder: Path) -> None:
    """Leaves `backbone.pth` in the folder of a complete run that was made without it."""
    with torch.device("meta"):
        network = backbones.build(job.plan.run.backbone, input_shape(job.dataset, job.places.size))
    export_complete(folder, list(network.state_dict()))
    print(f"{folder / 'backbone.pth'} was made of its weights", file=sys.stderr)


def train(job: Job, cores: Cores, stage: bool) -> Path:
    """Trains a run and writes its folder. stage: it is one that another run needs."""
    print(*job.found.lines(job.plan.run.dataset, job.dataset.num_classes), sep="\n", file=sys.stderr)
    device = devices.pick(job.plan.run.device)
    if job.plan.run.precision == "bf16" and devices.lacks_bf16(device):
        print(
            "warning: --precision bf16: this CPU has no arithmetic for it, and takes many times as long as with "
            "--precision 32",
            file=sys.stderr,
        )
    threads = cores.take(device)
    trainer, plan, settings = prepared(job)
    folder, state = resume.open_run(plan.run, settings | {"threads": threads}, trainer.device, stage)
    if threads is not None and (begun := folder.threads() or cores.usual) != threads:
        print(f"{folder.path} goes on with {begun} threads, as it began, to stay the same to the bit", file=sys.stderr)
        cores.keep_to(begun)
        del trainer
        trainer, plan, settings = prepared(job)
    model, stream = trainer.model, trainer.stream
    if state is None and isinstance(stream, TaskList):
        folder.write_stream(stream, trainer.images.labels)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)  # a method may freeze some on the way
    request = signals.StopRequest()
    title = f"{model.label()} {plan.run.dataset} seed {plan.run.seed}"
    progress = Progress(title, stream.num_images() * stream.num_epochs)
    log = loggers.make(plan.run.logger, folder.path, settings)
    saving = Saving(folder, plan.run.save_every, request, log)
    trainer.listeners = [saving, progress]
    try:
        if state is not None:
            resume.go_on(trainer, state, folder)
        with request.listening():
            trainer.train()
        draw_predictions(job.dataset, trainer, folder.path / "predictions.png")
        keep_product(plan, folder)  # before the run counts as complete
        summary = summary_of(plan, trainer, saving.seconds, trainable, settings["stream_sha256"])
        described = described_of(job, trainer) if plan.method.evaluated else None  # of a stage nobody asks anything
        kept = state_of(trainer) if plan.method.evaluated and plan.run.keep_state else None
        folder.write_end(summary, trainer.history, model, plan.run.export, described, kept)
    except (signals.Stopped, KeyboardInterrupt) as stop:
        stop.kept = newest(folder)  # type: ignore[union-attr]
        raise
    except FloatingPointError as error:
        raise FloatingPointError(
            f"{error}; last good checkpoint: {newest(folder) or 'none yet'}; try a smaller --lr, --precision 32, or "
            f"--resume {folder.path} --on_nan skip"
        ) from error
    finally:
        progress.close()
        folder.close()
    return folder.path


def draw_predictions(dataset: Images, trainer: Trainer, path: Path) -> None:
    """The picture that a dataset has of what was learnt, if it has one."""
    if type(dataset).draw is Dataset.draw:
        return
    from utils.runs.plots import picture

    columns, labels = [trainer.stream.columns(t) for t in range(trainer.stream.num_tasks)], trainer.seen.labels
    tasks = [labels if own is None else labels[own.start : own.stop] for own in columns]
    trainer.model.eval()
    with torch.no_grad():
        picture(dataset.draw)(path, trainer.model, tasks)


def described_of(job: Job, trainer: Trainer) -> Description:
    """What the run's learner takes and gives."""
    dataset, stream, size = job.dataset, trainer.stream, job.places.size
    (channels, *_), names = input_shape(dataset, size), job.found.class_names
    return Description(
        # Folders of a benchmark may be fewer than its classes.
        names=None if names is None else [*names, *(f"class {k}" for k in range(len(names), stream.num_classes))],
        labels=list(trainer.seen.labels),
        channels=3 if size is None else channels,
        side=size,
        held=None if size is None else trainer.images.raw(torch.arange(1)).shape[-1],
        fit=getattr(dataset, "fit", "squash"),
        num_inputs=dataset.num_inputs,
        mean=[1.0] * 3 if size is None else list(dataset.mean),
        std=[1.0] * 3 if size is None else list(dataset.std),
        num_classes=stream.num_classes,
        num_outputs=stream.num_outputs,
        num_tasks=stream.num_tasks,
        num_images=stream.num_images(),
        num_batches=stream.num_batches(),
        batches_per_update=stream.batches_per_update,
        num_domains=stream.num_domains,
        device=trainer.device.type,
    )


def state_of(trainer: Trainer) -> dict[str, Any]:
    """What the learner goes on from beside its weights, which `model.safetensors` holds."""
    return {name: value for name, value in trainer.state_dict().items() if name not in ("model", "history")}


def newest(folder: RunFolder) -> Path | None:
    """The newest checkpoint of a run."""
    return next(iter(checkpoint.found(folder.checkpoints)), None)


def prepared(job: Job) -> tuple[Trainer, Plan, dict]:
    """A trainer that has not begun, the plan with what follows from its stream, and the config of the run."""
    plan, dataset, options = job.plan, job.dataset, job.plan.run
    device = devices.pick(options.device)
    devices.reset_peak_memory(device)
    torch.manual_seed(options.init_seed)
    network = built(job)
    images = read_images(plan, dataset, job.places, device)
    own = own_options(plan, dataset, job.class_order())
    stream = make_stream(options, own, images[0].labels, dataset.num_classes)
    plan = with_fitting_period(plan, stream, len(images[0]))
    if folder := folder_to_fill(plan):
        writable_folder(folder, "--save_to")
    trainer = assemble(plan, dataset, network, images, stream, job.places.size, kept=job.places.cache / features.FOLDER)
    trainer.history.names = job.found.class_names
    origin = {
        "stream_sha256": stream.sha256() if isinstance(stream, TaskList) else None,
        "backbone_sha256": tensors_sha256(trainer.model.backbone.state_dict()),
    }
    config = with_content(replace(job, plan=plan))
    return trainer, plan, config | origin | {"identity": config["identity"]}


def built(job: Job) -> nn.Module:
    """The network with its weights, frozen."""
    options = job.plan.run
    shape = input_shape(job.dataset, job.places.size)
    network = backbones.build(options.backbone, shape).requires_grad_(False)
    files = backbones.weights_files(options.backbone, options.backbone_path, options.checkpoint_dir)
    for file, report in backbones.fill(network, files):
        if file.parent != backbones.SHIPPED:
            print(f"{file}: {report}", file=sys.stderr)
    return network


def keep_product(plan: Plan, folder: RunFolder) -> None:
    """Beside what a stage left in `--save_to`, its settings and, last, the manifest that makes it count."""
    save_to = save_folder(plan)
    if save_to is not None and plan.method.product(plan.method_args):
        shutil.copy(folder.path / "config.yaml", save_to / "config.yaml")
        write_manifest(save_to)


def summary_of(plan: Plan, trainer: Trainer, checkpoints: float, trainable: int, stream: str | None) -> Summary:
    """checkpoints: seconds that they took. trainable: parameters. stream: its digest."""
    model, options = trainer.model, plan.run
    metrics: dict[str, Any] = trainer.history.summary()
    return Summary(
        label=model.label(),
        model=options.model,
        dataset=options.dataset,
        scenario=options.scenario,
        seed=options.seed,
        **metrics,
        own=model.measures() | mean_entropies(trainer.history.per_task()),
        samples=trainer.images_met,
        skipped_updates=trainer.skipped,
        left_out_images=trainer.left_out,
        seconds=round(trainer.seconds, 3),
        checkpoint_seconds=round(checkpoints, 3),
        trainable_parameters=trainable,
        total_parameters=sum(p.numel() for p in model.parameters()),
        needs_task_boundaries=model.needs_task_boundaries,
        rereads=model.rereads,
        stream_sha256=stream,
        peak_memory_mb=trainer.peak_memory_mb,
    )
