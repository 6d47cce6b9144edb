"""Runs one method on one dataset, once per seed: `python main.py --model mepo --dataset seq-digits`.

Parses the command line, builds stream, network and method, trains, and leaves a run folder per seed.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sys
from pathlib import Path

from utils import plan as plans
from utils import signals
from utils.errors import UsageError, reason
from utils.files import changed_files, check_writable, read_manifest, writable_folder, write_manifest


def main(argv: list[str]) -> int:
    """Exit code: 0 done, 1 the run failed, 2 bad input, 75 told to stop (a scheduler may requeue), 130 interrupted."""
    # Threads that wait for each other spin for a moment only, then sleep, so that they do not hold cores that other
    # programs need. Read when torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "100000")
    try:
        plan = plans.parse(argv)
        if isinstance(plan, str):
            print(plan)
            return 0
        if plan.run.args.dry_run:
            print(dry_run(plan))
            return 0
        with signals.handled(signals.stop, (signal.SIGTERM, signal.SIGUSR1)):
            for seed in plan.seeds():
                print(run(plan.with_seed(seed)), flush=True)
        return 0
    except (UsageError, FloatingPointError, MemoryError) as error:
        if "--debug" in argv:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except OSError as error:
        if "--debug" in argv:
            raise
        print(f"error: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        return 1 if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else 2
    except signals.Stopped as stop:
        print("stopped; the same command with --resume auto goes on from its last checkpoint", file=sys.stderr)
        return stop.code
    except KeyboardInterrupt:
        print("interrupted; what was measured so far is in the run folder", file=sys.stderr)
        return 130


def run(plan: plans.Plan, again: bool = False) -> Path:
    """One run, after the stages whose products it needs; gives its folder. again: even if it is complete."""
    from setproctitle import setproctitle

    from utils.device import out_of_memory

    options = plan.run.args
    check_writable(Path(options.results), "--results")
    for stage in plan.method.prepare(options, plan.args.args):
        if not stage.output.exists():
            make_product(stage, plan)
        elif changed := changed_files(stage.output.parent, read_manifest(stage.output.parent)):
            raise UsageError(
                f"{stage.output.parent}: {', '.join(changed)}: not as {stage.model} left it; remove the folder, the "
                "stage is repeated"
            )
    done = None if again else complete_run(plan)
    if done is not None:
        print(f"{done} is this run, complete; not repeated", file=sys.stderr)
        return done
    setproctitle(f"{options.model} {options.dataset} seed{options.seed}")
    try:
        return train(plan)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        sizes = f"--batch_size {options.batch_size}, --eval_batch_size {options.eval_batch_size}"
        raise MemoryError(
            f"out of memory with {sizes} and --precision {options.precision}; try smaller ones, or --precision bf16"
        ) from error


def complete_run(plan: plans.Plan) -> Path | None:
    """The folder of this run if `--resume` asks for one that has ended. Raises UsageError if it names another run."""
    from utils.results import differences, find_run

    options = plan.run.args
    if options.resume == "never":
        return None
    if options.resume == "auto":
        return find_run(options.results, plan.settings(), complete=True)
    different = differences(Path(options.resume), plan.settings())
    if different:
        raise UsageError(f"--resume {options.resume}: that run has other settings: {'; '.join(different)}")
    return Path(options.resume) if (Path(options.resume) / "summary.json").exists() else None


def dry_run(plan: plans.Plan) -> str:
    """What a run would do, by the options alone; weights and the products of stages may be missing."""
    import backbone
    from utils.dry_run import describe

    options, args = plan.run.args, plan.args.args
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
    stages = plan.method.prepare(options, args)
    return describe(plan, dataset, places.size, lambda info: sketch(plan, info), weights, stages)


def sketch(plan: plans.Plan, info):
    """The method on the meta device: shapes without numbers. It refuses what the method itself would refuse."""
    import warnings

    import torch

    import backbone
    from utils.dry_run import sizes_that_fit

    with torch.device("meta"), warnings.catch_warnings(), sizes_that_fit():
        warnings.simplefilter("ignore")  # weights that are loaded into it go nowhere
        network = backbone.build(plan.run.args.backbone, info.image_size).requires_grad_(False)
        return plan.method(network, info, plan.args.args)


def open_dataset(plan: plans.Plan):
    """The dataset of a run, not loaded yet, and its places."""
    import backbone
    from datasets.base import Places
    from utils.registry import DATASETS

    options = plan.run.args
    dataset = DATASETS.load(options.dataset)(plan.data.args)
    size = dataset.image_size or backbone.input_size(options.backbone)
    return dataset, Places(Path(options.data_dir), Path(options.cache_dir), size)


def make_product(stage, plan: plans.Plan) -> None:
    """Runs a stage and keeps its settings beside its product. plan: of the run that needs it."""
    options = plan.run.args
    writable_folder(stage.output.parent, "--checkpoint_dir")
    print(f"{stage.output} is not there yet; making it with {stage.model} on {stage.dataset}", file=sys.stderr)
    carried = ("device", "data_dir", "cache_dir", "checkpoint_dir", "results", "plugins", "save_every", "on_nan")
    given = {name: getattr(options, name) for name in carried}
    given["resume"] = "never" if options.resume == "never" else "auto"
    given |= {name: getattr(plan.data.args, name, False) for name in ("download", "skip_bad")} | stage.options
    folder = run(plans.make(given | {"model": stage.model, "dataset": stage.dataset}).with_seed(1), again=True)
    shutil.copy(folder / "config.yaml", stage.output.parent / "config.yaml")
    write_manifest(stage.output.parent)


def train(plan: plans.Plan) -> Path:
    """Builds everything a plan names, trains, and writes the run folder."""
    # Imported here so that --help and wrong names are answered without waiting for torch.
    import torch

    import backbone
    from utils import checkpoint, loggers
    from utils import device as devices
    from utils.contracts import StreamInfo
    from utils.dry_run import expected_stream
    from utils.evaluation import Evaluator
    from utils.images import Transform, hold_out, image_set
    from utils.progress import Progress
    from utils.signals import StopRequest
    from utils.streams import TaskList, make_stream
    from utils.tensors import tensors_sha256
    from utils.training import Trainer

    options, args = plan.run.args, plan.args.args
    device = devices.pick(options.device)
    devices.reset_peak_memory(device)
    # First whatever can be wrong with options and files, as decoding a large dataset takes its time.
    weights = None
    if options.backbone_path != backbone.RANDOM:
        weights = backbone.weights_file(options.backbone, options.backbone_path, options.checkpoint_dir)
    dataset, places = open_dataset(plan)
    dataset.inspect(places)
    if dataset.counts is not None:
        sketch(plan, expected_stream(plan, dataset, places.size))
    torch.manual_seed(options.init_seed)
    network = backbone.build(options.backbone, places.size).requires_grad_(False)
    if weights is not None:
        report = backbone.load_weights(network, weights)

    train_part = dataset.load(places, train=True)
    rows, held = hold_out(train_part[1], options.validation) if options.validation > 0 else (None, None)
    images = image_set(dataset, options, train_part, device, rows)
    stream = make_stream(options, plan.method.stream_options(args), images.labels, dataset.num_classes)
    transform = Transform(dataset, device, options.train_seed, places.size)
    evaluator = None
    if plan.method.evaluated:
        test_part = dataset.load(places, train=False) if held is None else train_part
        test_images = image_set(dataset, options, test_part, device, held)
        evaluator = Evaluator(test_images, transform, options.eval_batch_size, options.eval_mask)
    info = StreamInfo(
        num_classes=dataset.num_classes,
        num_tasks=stream.num_tasks,
        num_images=stream.num_images(),
        num_updates=stream.num_batches() // stream.batches_per_update * options.online_iter,
        image_size=places.size,
        seed=options.train_seed,
        augment=transform.train,
        plain=transform.test,
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
    settings = plan.settings() | origin
    folder, state = open_run(options, settings, device)
    if state is None and isinstance(stream, TaskList):
        labels = images.labels % dataset.num_classes
        folder.write_stream(stream, [labels[task].tolist() for task in stream.tasks])
    log = loggers.make(options.logger, folder.path, settings)
    title = f"{model.label()} {options.dataset} seed {options.seed}"
    request = StopRequest()
    progress = Progress(folder, title, stream.num_images() * stream.num_epochs, log, options.save_every, request)
    periods = options.online_iter, options.eval_period
    trainer = Trainer(model, stream, images, transform, evaluator, *periods, progress, options.on_nan == "skip")
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
            "seconds": round(trainer.seconds, 3),
            "checkpoint_seconds": round(progress.saving, 3),
            "trainable_parameters": trainable,
            "total_parameters": sum(p.numel() for p in model.parameters()),
            "needs_task_boundaries": model.needs_task_boundaries,
            "stream_sha256": origin["stream_sha256"],
            "peak_memory_mb": devices.peak_memory_mb(device),
        }
        folder.write_end(summary, history, model, options.export)
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


def open_run(options, settings: dict, device):
    """The folder of a run, and the state of the one that it goes on with; None for a new one."""
    from utils import checkpoint
    from utils.results import RunFolder, differences, find_run

    old = find_run(options.results, settings, complete=False) if options.resume == "auto" else None
    if options.resume not in ("auto", "never"):
        old = Path(options.resume)
    if old is None:
        folder = RunFolder.new(options.results, options.dataset, options.model, options.seed)
        folder.write_config(settings)
        return folder, None
    different = differences(old, settings)
    if different:
        raise UsageError(f"{old}: the run to go on with began otherwise: {'; '.join(different)}; use --resume never")
    folder = RunFolder(old)
    return folder, checkpoint.load(folder.checkpoints, device)


def go_on(trainer, state: dict, folder: Path) -> None:
    """Puts a trainer where another stood. Raises UsageError if the state is not that of such a run."""
    try:
        trainer.load_state_dict(state)
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise UsageError(
            f"{folder}: its checkpoint does not fit this run ({reason(error)}); use --resume never"
        ) from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
