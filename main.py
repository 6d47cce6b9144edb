"""Runs one method on one dataset, once per seed: `python main.py --model mepo --dataset seq-digits`.

Parses the command line, builds stream, network and method, trains, and leaves a run folder per seed.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":  # ours, whatever other package of that name there is, or was imported when Python started
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    for name in [name for name in sys.modules if name.partition(".")[0] == "utils"]:
        del sys.modules[name]

from utils import door, signals

if __name__ == "__main__":
    door.begin(packages=False)  # --help needs none of them

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from utils import identity, locks
from utils import plan as plans
from utils.errors import UsageError, reason
from utils.files import changed_files, check_writable, read_manifest, writable_folder, write_manifest


def main(argv: list[str]) -> int:
    """Exit code: 0 done, 1 the run failed, 2 bad input, 75 told to stop (a scheduler may requeue), 130 interrupted."""
    # Threads that wait for each other spin for a moment only, then sleep, so that they do not hold cores that other
    # programs need. Read when torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "100000")
    return door.answer(lambda: command(argv), "--debug" in argv)


def command(argv: list[str]) -> None:
    """All runs of a command line."""
    plan = plans.parse(argv)
    if isinstance(plan, str):
        print(plan)
        return
    import backbone  # noqa: F401  (the last of what takes seconds, and a signal that meets an import can end anywhere)

    with signals.obeyed():
        if plan.run.args.dry_run:
            print(dry_run(plan))
            return
        for folder in run_all(plan):
            print(folder, flush=True)


@dataclass
class Job:
    """A run that has been checked. dataset: of the whole program, so that its files are listed once. found: what it
    found. stages: whose products the run reads."""

    plan: plans.Plan
    dataset: Any
    places: Any
    found: Any
    stages: list


def run_all(plan: plans.Plan) -> Iterator[Path]:
    """The folders of the runs of a plan, one per seed. All that can be wrong is found before anything is trained."""
    job = check(plan.with_seed(plan.seeds()[0]))
    for seed in plan.seeds():
        refuse_other_content(replace(job, plan=plan.with_seed(seed)))
    if not all(map(is_made, job.stages)):
        for train in parts_read(plan):  # decoded once, and now: a bad image is not to be found after hours
            job.dataset.load(job.places, train)
    for stage in job.stages:
        make_product(stage, plan)
    for seed in plan.seeds():
        yield run(replace(job, plan=plan.with_seed(seed)))


def check(plan: plans.Plan, to_come: Sequence = ()) -> Job:
    """Looks at all that a run and its stages need: options, data, weights, places. Reads no image, trains nothing.

    to_come: stages before this one, whose products need not be there yet. Raises UsageError.
    """
    import backbone
    from models.base import open_dataset
    from utils import device as devices
    from utils.dry_run import expected_stream, without_products
    from utils.listing import read_class_order

    options = plan.run.args
    devices.pick(options.device)
    check_writable(Path(options.results), "--results")
    if options.resume not in ("auto", "never"):
        refuse_other_options(plan)
    if save_to := getattr(plan.args.args, "save_to", None):
        check_writable(Path(save_to), "--save_to")
    dataset, places = open_dataset(plan)
    weights = None
    if options.backbone_path != backbone.RANDOM and not is_to_come(options.backbone_path, to_come):
        weights = backbone.weights_file(options.backbone, options.backbone_path, options.checkpoint_dir)
    found = dataset.survey(places, test=False in parts_read(plan))
    read_class_order(options.class_order, dataset.num_classes, found.class_names)
    stages = plan.method.prepare(options, plan.args.args)
    for k, stage in enumerate(stages):
        if not is_made(stage):
            check_stage(stage, plan, stages[:k])
    if found.counts is not None:
        missing = [stage for stage in (*to_come, *stages) if not stage.output.exists()]
        sketch(without_products(plan, missing), expected_stream(plan, dataset, found.counts, places.size), weights)
    return Job(plan, dataset, places, found, stages)


def check_stage(stage, plan: plans.Plan, before: Sequence) -> None:
    """`check` of a stage that is to be run. Its complaints name options that the caller may not have."""
    check_writable(Path(plan.run.args.checkpoint_dir), "--checkpoint_dir")
    try:
        check(stage_plan(stage, plan), before)
    except UsageError as error:
        raise UsageError(
            f"{plan.run.args.model} needs a run of {stage.model} on {stage.dataset}, which is not possible: {error}; "
            f"run main.py --model {stage.model} with other options and --save_to DIR, and name its product by "
            f"--{stage.option}"
        ) from None


def refuse_other_options(plan: plans.Plan) -> None:
    """Raises UsageError if `--resume FOLDER` names a run of other options."""
    from utils.runs import config_of

    folder = Path(plan.run.args.resume)
    here = plan.settings() | identity.record(plan, {})
    if different := identity.differences(config_of(folder), here):
        raise UsageError(f"--resume {folder}: that run has other settings: {'; '.join(different)}")


def parts_read(plan: plans.Plan) -> tuple[bool, ...]:
    """Which parts of its dataset a run reads: True for training, False for test."""
    return (True, False) if plan.method.evaluated and not plan.run.args.validation else (True,)


def is_to_come(path: str | None, stages: Sequence) -> bool:
    return any(path == str(stage.output) and not stage.output.exists() for stage in stages)


def is_made(stage) -> bool:
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


def make_product(stage, plan: plans.Plan) -> None:
    """Runs a stage, unless another process does; then waits for it. plan: of the run that needs it."""
    folder = stage.output.parent
    if is_made(stage):
        if identity.data_of(folder) is None:
            print(f"note: {folder} does not say which data it was made from; taken as it is", file=sys.stderr)
        elif stage.data is None:
            print(f"note: {folder} is taken as it is, its data are not here to compare", file=sys.stderr)
        return
    writable_folder(folder, "--checkpoint_dir")
    with locks.waiting(folder / ".lock", f"makes {stage.output}", keep=False):
        if is_made(stage):
            job = check(stage_plan(stage, plan))
            here, made_from = job.dataset.digest(job.places, train=True), identity.data_of(folder)
            if None not in (here, made_from) and here != made_from:
                raise UsageError(
                    f"{folder}: another process has just made it from other data; start the same command again, which "
                    "then makes one of its own"
                )
            return
        why = "is there without its manifest, so it may be unfinished" if stage.output.exists() else "is not there yet"
        print(f"{stage.output} {why}; making it with {stage.model} on {stage.dataset}", file=sys.stderr)
        run(check(stage_plan(stage, plan)), again=True)


def stage_plan(stage, plan: plans.Plan) -> plans.Plan:
    """The run of a stage that the run of `plan` needs."""
    options = plan.run.args
    carried = ("device", "checkpoint_dir", "results", "plugins", "save_every", "on_nan")
    given = {name: getattr(options, name) for name in carried}
    given["resume"] = "never" if options.resume == "never" else "auto"
    return plans.make(given | stage.options | {"model": stage.model, "dataset": stage.dataset}).with_seed(1)


def run(job: Job, again: bool = False) -> Path:
    """One run, whose stages have been made; gives its folder. again: it is a stage, run even if it is complete."""
    from setproctitle import setproctitle

    from utils.device import out_of_memory

    options = job.plan.run.args
    done = None if again else complete_run(job)
    if done is not None and not is_saved(job.plan):
        print(f"{done} is this run, complete, but --save_to lacks what it leaves; repeated", file=sys.stderr)
    elif done is not None:
        print(f"{done} is this run, complete; not repeated", file=sys.stderr)
        if options.export == "pth":
            export(job, done)
        return done
    setproctitle(f"{options.model} {options.dataset} seed{options.seed}")
    try:
        return train(job, again)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        sizes = f"--batch_size {options.batch_size}, --eval_batch_size {options.eval_batch_size}"
        raise MemoryError(
            f"out of memory with {sizes} and --precision {options.precision}; try smaller ones, or --precision bf16"
        ) from error


def export(job: Job, folder: Path) -> None:
    """Leaves `backbone.pth` in the folder of a complete run that was made without it."""
    import torch

    import backbone
    from utils.results import export_complete

    with torch.device("meta"):
        network = backbone.build(job.plan.run.args.backbone, job.places.size)
    export_complete(folder, list(network.state_dict()))
    print(f"{folder / 'backbone.pth'} was made of its weights", file=sys.stderr)


def is_saved(plan: plans.Plan) -> bool:
    """Whether `--save_to`, if it is given, holds what the run leaves there."""
    save_to, product = getattr(plan.args.args, "save_to", None), plan.method.product(plan.args.args)
    if not save_to or product is None:
        return not save_to or Path(save_to).exists()
    digests = read_manifest(Path(save_to))
    return product in digests and not changed_files(Path(save_to), digests)


def what_is_read(job: Job, so_far: bool = False) -> dict[str, str | None]:
    """SHA-256 of all that decides what a run computes: data, weights, products. so_far: of what is there already."""
    import backbone
    from utils.listing import read_class_order

    plan, options = job.plan, job.plan.run.args
    found = {f"data.{'train' if train else 'test'}": content_of(job, train) for train in parts_read(plan)}
    found["run.backbone_path"] = backbone.fingerprint(options.backbone, options.backbone_path, options.checkpoint_dir)
    if order := read_class_order(options.class_order, job.dataset.num_classes, job.found.class_names):
        found["run.class_order"] = hashlib.sha256(repr(order).encode()).hexdigest()
    missing = [stage.output for stage in job.stages if not is_made(stage)] if so_far else []
    to_come = tuple(str(path) for output in missing for path in (output, output.parent))
    return found | identity.option_digests(plan, to_come)


def content_of(job: Job, train: bool) -> str | None:
    """SHA-256 of a part of the data; what is drawn on first use is drawn for it."""
    if (digest := job.dataset.digest(job.places, train)) is None:
        job.dataset.load(job.places, train)
        digest = job.dataset.digest(job.places, train)
    return digest


def complete_run(job: Job) -> Path | None:
    """The folder of this run if `--resume` asks for one that has ended. Raises UsageError if it names another run."""
    from utils import runs

    plan, resume = job.plan, job.plan.run.args.resume
    if resume == "never":
        return None
    settings = plan.settings() | identity.record(plan, {})
    if resume != "auto":
        settings |= identity.record(plan, what_is_read(job))
        runs.refuse_another(Path(resume), settings)
        if identity.read(runs.config_of(Path(resume))) is None:
            print(
                f"note: {resume} does not say which data and weights it read; nobody can compare them", file=sys.stderr
            )
        return Path(resume) if runs.read_run(Path(resume)).summary else None
    ended = [run for run in runs.candidates(plan.run.args.results, settings) if runs.has_ended(run[0])]
    if not ended:  # so that nothing has to be read for it
        return None
    settings |= identity.record(plan, what_is_read(job))
    if (same := identity.same_run(ended, settings)) is None:
        folder, config = ended[0]
        print(f"{folder} is not this run: {identity.why_another(config, settings)}", file=sys.stderr)
    return same


def refuse_other_content(job: Job) -> None:
    """Raises UsageError if `--resume` asks for a run that read something else, as far as that can be known before its
    stages are made."""
    from utils import runs

    options, settings = job.plan.run.args, job.plan.settings() | identity.record(job.plan, {})
    if options.resume == "never" or (options.resume == "auto" and not runs.candidates(options.results, settings)):
        return
    run_to_go_on_with(options, settings | identity.record(job.plan, what_is_read(job, so_far=True)))


def dry_run(plan: plans.Plan) -> str:
    """What a run would do, by the options alone; weights and the products of stages may be missing."""
    import backbone
    from models.base import open_dataset
    from utils.dry_run import describe, without_products

    options = plan.run.args
    dataset, places = open_dataset(plan)
    dataset.inspect(places)
    if dataset.counts is None:
        raise UsageError(
            f"--dry_run: {options.dataset} does not say how many images it has (`counts` of datasets/base.py)"
        )
    try:
        weights = str(backbone.weights_file(options.backbone, options.backbone_path, options.checkpoint_dir))
    except UsageError as error:
        weights, options.backbone_path = f"missing; {error}", backbone.RANDOM
    stages = plan.method.prepare(options, plan.args.args)
    bare = without_products(plan, stages)
    return describe(bare, dataset, places.size, lambda info: sketch(bare, info), weights, stages)


def sketch(plan: plans.Plan, info, weights: Path | None = None):
    """The method on the meta device: shapes without numbers. It refuses what the method itself would refuse.

    weights: file that is to fit the network, if it is there.
    """
    import warnings

    import torch

    import backbone
    from utils.dry_run import sizes_that_fit

    with torch.device("meta"), warnings.catch_warnings(), sizes_that_fit():
        warnings.simplefilter("ignore")  # weights that are loaded into it go nowhere
        network = backbone.build(plan.run.args.backbone, info.image_size).requires_grad_(False)
        if weights is not None:
            backbone.load_weights(network, weights)
        return plan.method(network, info, plan.args.args)


def train(job: Job, stage: bool) -> Path:
    """Builds everything a run needs, trains, and writes the run folder. stage: it is one that another run needs."""
    # Imported here so that --help and wrong names are answered without waiting for torch.
    import torch

    import backbone
    from utils import checkpoint, loggers
    from utils import device as devices
    from utils.contracts import StreamInfo
    from utils.evaluation import Evaluator
    from utils.images import Transform, hold_out, image_set
    from utils.listing import read_class_order
    from utils.progress import Progress
    from utils.signals import StopRequest
    from utils.streams import TaskList, make_stream
    from utils.tensors import tensors_sha256
    from utils.training import Trainer

    plan, dataset, places = job.plan, job.dataset, job.places
    options, args = plan.run.args, plan.args.args
    device = devices.pick(options.device)
    devices.reset_peak_memory(device)
    weights = None
    if options.backbone_path != backbone.RANDOM:
        weights = backbone.weights_file(options.backbone, options.backbone_path, options.checkpoint_dir)
    class_order = read_class_order(options.class_order, dataset.num_classes, job.found.class_names)
    print(*job.found.lines(options.dataset, dataset.num_classes), sep="\n", file=sys.stderr)
    torch.manual_seed(options.init_seed)
    network = backbone.build(options.backbone, places.size).requires_grad_(False)
    if weights is not None:
        report = backbone.load_weights(network, weights)

    train_part = dataset.load(places, train=True)
    rows, held = hold_out(train_part[1], options.validation) if options.validation > 0 else (None, None)
    images = image_set(dataset, options, train_part, device, rows)
    stream = make_stream(options, plan.method.stream_options(args), images.labels, dataset.num_classes, class_order)
    if plan.run.origin.get("eval_period") != "command line":
        plan = with_fitting_period(plan, stream, len(images))
        options = plan.run.args
    transform = Transform(dataset, device, options.train_seed, places.size)
    evaluator = None
    if plan.method.evaluated:
        test_part = dataset.load(places, train=False) if held is None else train_part
        test_images = image_set(dataset, options, test_part, device, held)
        evaluator = Evaluator(test_images, transform, options.eval_batch_size, options.eval_mask)
        evaluator.check(images.labels[torch.cat(stream.tasks)] if isinstance(stream, TaskList) else images.labels)
    info = StreamInfo(
        num_classes=dataset.num_classes,
        num_tasks=stream.num_tasks,
        num_images=stream.num_images(),
        num_updates=stream.num_batches() // stream.batches_per_update * options.online_iter,
        image_size=places.size,
        seed=options.train_seed,
        augment=transform.train,
        plain=transform.test,
        images=images.raw,
    )
    model = plan.method(network, info, args).to(device)
    model.optimizer = model.configure_optimizer()
    model.autocast = devices.autocast(device, options.precision)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)  # a method may freeze some on the way
    origin = {
        "stream_sha256": stream.sha256() if isinstance(stream, TaskList) else None,
        "backbone_sha256": tensors_sha256(model.backbone.state_dict()),
    }
    torch.manual_seed(options.train_seed)

    if weights is not None and weights.parent != backbone.SHIPPED:
        print(f"{weights}: {report}", file=sys.stderr)
    settings = plan.settings() | origin | identity.record(plan, what_is_read(job))
    folder, state = open_run(options, settings, device, stage)
    if state is None and isinstance(stream, TaskList):
        labels = images.labels % dataset.num_classes
        folder.write_stream(stream, [labels[task].tolist() for task in stream.tasks])
    log = loggers.make(options.logger, folder.path, settings)
    title = f"{model.label()} {options.dataset} seed {options.seed}"
    request = StopRequest()
    progress = Progress(folder, title, stream.num_images() * stream.num_epochs, log, options.save_every, request)
    # A run goes on with the period that it began with, whatever this version would choose.
    periods = options.online_iter, options.eval_period if state is None else folder.eval_period()
    trainer = Trainer(model, stream, images, transform, evaluator, *periods, progress, options.on_nan == "skip")
    trainer.history.names = job.found.class_names
    try:
        if state is not None:
            go_on(trainer, state, folder.path)
            print(f"{folder.path} goes on after {trainer.images_met} images", file=sys.stderr)
        with request.listening():
            history = trainer.train()
        summary = {
            "label": model.label(),
            "model": options.model,
            "dataset": options.dataset,
            "scenario": options.scenario,
            "seed": options.seed,
            "complete": True,
            **history.summary(),
            "samples": trainer.images_met,
            "skipped_updates": trainer.skipped,
            "left_out_images": trainer.left_out,
            "seconds": round(trainer.seconds, 3),
            "checkpoint_seconds": round(progress.saving, 3),
            "trainable_parameters": trainable,
            "total_parameters": sum(p.numel() for p in model.parameters()),
            "needs_task_boundaries": model.needs_task_boundaries,
            "stream_sha256": origin["stream_sha256"],
            "peak_memory_mb": trainer.peak_memory_mb,
        }
        if plan.method.product(args) and args.save_to:  # before the run counts as complete
            shutil.copy(folder.path / "config.yaml", Path(args.save_to) / "config.yaml")
            write_manifest(Path(args.save_to))
        folder.write_end(summary, history, model, options.export)
    except (signals.Stopped, KeyboardInterrupt) as stop:
        stop.kept = next(iter(checkpoint.found(folder.checkpoints)), None)
        raise
    except FloatingPointError as error:
        kept = next(iter(checkpoint.found(folder.checkpoints)), None)
        raise FloatingPointError(
            f"{error}; last good checkpoint: {kept or 'none yet'}; try a smaller --lr, --precision 32, or "
            f"--resume {folder.path} --on_nan skip"
        ) from error
    finally:
        progress.close()
        folder.close()
    return folder.path


def with_fitting_period(plan: plans.Plan, stream, num_images: int) -> plans.Plan:
    """The plan with a shorter --eval_period, which it says, where the stream is too short for the one that it has."""
    from utils.training import fitting_period

    options = plan.run.args
    period = fitting_period(stream, num_images, options.eval_period)
    if period == options.eval_period:
        return plan
    print(
        f"--eval_period {period} instead of {options.eval_period}: the stream has only {stream.num_images()} images",
        file=sys.stderr,
    )
    return plan.with_option("eval_period", period, f"{options.dataset}: a tenth of the stream")


def open_run(options, settings: dict, device, stage: bool):
    """The folder of a run, and the state of the one that it goes on with; None for a new one."""
    from utils import checkpoint
    from utils.results import RunFolder
    from utils.runs import config_of

    old = run_to_go_on_with(options, settings, stage)
    if old is None:
        folder = RunFolder.new(options.results, options.dataset, options.model, options.seed)
        folder.write_config(settings | identity.code())
        return folder, None
    folder, now = RunFolder(old), identity.code()
    config = config_of(old)
    if changed := identity.code_changes(config, now):
        print(f"{old}: since this run was last at work, there changed: {', '.join(changed)}", file=sys.stderr)
        folder.write_config(config | {"resumed": now})
    return folder, checkpoint.load(folder.checkpoints, device)


def run_to_go_on_with(options, settings: dict, stage: bool = False) -> Path | None:
    """The run that has not ended and that `--resume` asks for, if any. Raises UsageError if it read something else.

    stage: one that reads something else is passed over, as its caller has no word for it.
    """
    from utils import runs

    if options.resume not in ("auto", "never"):
        runs.refuse_another(Path(options.resume), settings)
        return Path(options.resume)
    found = runs.candidates(options.results, settings) if options.resume == "auto" else []
    begun = [run for run in found if (run[0] / "checkpoints").is_dir() and not runs.has_ended(run[0])]
    if not begun or (same := identity.same_run(begun, settings)) is not None:
        return same if begun else None
    folder, config = begun[0]
    why = (
        f"{folder}: a run of these options that has not ended is not this run: {identity.why_another(config, settings)}"
    )
    if stage:
        print(f"{why}; a new one begins", file=sys.stderr)
        return None
    known = identity.read(config) is not None
    raise UsageError(
        f"{why}; --resume {'never' if known else folder} {'begins a new one' if known else 'goes on with it'}"
    )


def go_on(trainer, state: dict, folder: Path) -> None:
    """Puts a trainer where another stood. Raises UsageError if the state is not that of such a run."""
    try:
        trainer.load_state_dict(state)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise UsageError(
            f"{folder}: its checkpoint does not fit this run ({reason(error)}); use --resume never"
        ) from error


if __name__ == "__main__":
    door.leave(main(sys.argv[1:]))
