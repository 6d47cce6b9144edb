"""Options from dataclasses: declaration, precedence, checks and `--help`, on top of argparse.

An option is a dataclass field made by `option(...)`. Its value is the field's default (`--n_tasks` for what a method
has one of per task, its `one_per_task`), unless one of the tables of `utils.plan.precedence` or the command line sets
it. Nothing else does.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import functools
import math
import os
import re
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

from utils.errors import UsageError

LARGEST = 2**31 - 1  # integer that an option takes
WHOLE_TASKS = ("class-il", "task-il", "domain-il")  # streams that TaskArgs belong to
BLURRY = {"scenario": ("si-blurry",)}
IN_TASKS = {"scenario": ("si-blurry", *WHOLE_TASKS)}
IN_PASSES = {"scenario": (*IN_TASKS["scenario"], "shuffled", "adaptation")}
SCRIPTS = "MISA, MePo and FlyGCL scripts"


def option(
    default: Any,
    help: str,
    source: str = "",
    *,
    low: float | None = None,
    high: float | None = None,
    method: bool = False,
    decides: bool = True,
    reads: tuple[str, ...] | None = None,
    later: bool = False,
    where: dict[str, tuple[Any, ...]] | None = None,
) -> Any:
    """A dataclass field that becomes an option. The annotation gives its type: int, float, str, bool, Literal, a tuple
    of one of these (several values), or any of them with None.

    help: what it is, with its unit. source: where the default comes from. low, high: inclusive range of numbers.
    method: the value names another method whose options join the command line. For what makes two runs the same one
    (`utils.runs.identity`): decides: False where it says where or how a run happens, not what it computes. reads: the
    value is a path whose content counts, not its name: a file (an empty tuple), or these files of a folder. later: the
    option came after the first products of stages were made, whose names leave it out at its default. where: values of
    other options of the class without which it has no effect, so that it is refused on the command line.
    """
    metadata: dict[str, Any] = {"help": help, "source": source, "low": low, "high": high, "method": method}
    metadata |= {"decides": decides, "reads": reads, "later": later, "where": where or {}}
    return dataclasses.field(default=default, metadata=metadata)


@functools.cache
def scenarios() -> tuple[str, ...]:
    """Names of the streams, each a file of utils/streams/."""
    files = (Path(__file__).resolve().parent / "streams").glob("*.py")
    return tuple(sorted(file.stem.replace("_", "-") for file in files if file.stem not in ("__init__", "base")))


@dataclass(kw_only=True)
class RunArgs:
    """Options of every run."""

    model: str = option("", "method: a file of models/")
    dataset: str = option("", "dataset: a file of datasets/")
    backbone: str = option(
        "vit_tiny_glyphs",
        "network: vit_tiny_glyphs, vit_tiny_icons; sup21k, orig21k_1k, sup21k_1k, ibot21k, ibot1k, dino1k, mocov3_1k "
        "(ViT-B/16); a timm VisionTransformer by name; several of these, with + between; or a small one by its widths, "
        "as mlp-128-128-128, conv4-64, resnet18-20, resnet18-20-pool, resnet32-16",
    )
    backbone_path: str | None = option(
        None,
        "weight file (.safetensors, .pth, .pt, .npz), or 'random'; for several networks one each, with commas between; "
        "default: shipped, in --checkpoint_dir, or, for a small network, random",
        reads=(),
    )
    scenario: Literal[scenarios()] | None = option(  # type: ignore[valid-type]
        None, "stream; default: the first the method allows"
    )
    n_tasks: int = option(5, "tasks (sessions) of the stream", SCRIPTS, low=1, high=10_000, where=IN_TASKS)
    n: int = option(
        50,
        "percent of the classes that are disjoint (101: natural class order; classes left over when they are shared "
        "out to the tasks never come, as in the release)",
        SCRIPTS,
        low=0,
        high=101,
        where=BLURRY,
    )
    m: int = option(
        10, "percent of the blurry classes' images that are scattered", SCRIPTS, low=0, high=100, where=BLURRY
    )
    varying: bool = option(True, "task sizes and shares are random (flag rnd_NM of the authors)", SCRIPTS, where=BLURRY)
    n_epochs: int = option(1, "passes over each task", SCRIPTS, low=1, high=10_000, where=IN_PASSES)
    batch_size: int = option(64, "images of a stream batch", "FlyGCL; MISA and MePo halve it", low=1)
    online_iter: int = option(3, "updates per arriving batch, each freshly augmented", SCRIPTS, low=1)
    eval_period: int = option(
        1000, "images between anytime evaluations; negative: none", f"{SCRIPTS}; GTSRB in MISA and MePo: 2000"
    )
    eval_batch_size: int = option(
        128, "images of an evaluation batch", "twice the batch in the released trainers", low=1
    )
    eval_mask: Literal["seen", "none"] = option(
        "seen", "classes not met yet are masked in evaluation", "FlyGCL; MISA: none"
    )
    validation: float = option(
        0.0, "share of each class's training images held out and evaluated instead of the test images", low=0, high=0.9
    )
    seed: int = option(1, "sets the three seeds below", low=0, high=2**31 - 1)
    seeds: tuple[int, ...] | None = option(None, "several runs, one per seed", low=0, high=2**31 - 1, decides=False)
    stream_seed: int | None = option(None, "order of the stream; default: seed", low=0, high=2**31 - 1)
    init_seed: int | None = option(None, "initial weights; default: seed", low=0, high=2**31 - 1)
    train_seed: int | None = option(
        None, "augmentation and the method's own draws; default: seed", low=0, high=2**31 - 1
    )
    device: str | None = option(None, "cpu, cuda or cuda:<index>; default: cuda if there is one", decides=False)
    precision: Literal["32", "bf16"] = option(
        "32", "arithmetic of forward passes", "MISA and MePo scripts; FlyGCL scripts: mixed precision"
    )
    data_dir: str = option("data", "folder of the datasets", decides=False)
    cache_dir: str = option(
        "data", "folder of what is made of them: decoded images, drawn glyphs, features of test images", decides=False
    )
    checkpoint_dir: str = option("checkpoints", "folder of products that later runs reuse", decides=False)
    results: str = option("runs", "folder of the outputs, one of its own for each run", decides=False)
    resume: str = option(
        "never",
        "auto: resumes a run of the same settings in --results from its last checkpoint, a complete one stays; "
        "never: a new run; or the folder of the run to resume",
        decides=False,
    )
    save_every: float = option(
        300.0, "seconds between checkpoints; one is written at every task end, too", low=0, decides=False
    )
    on_nan: Literal["stop", "skip"] = option(
        "stop",
        "an update whose loss or gradient is NaN or infinite ends the run, or is left out and counted",
        decides=False,
    )
    export: Literal["pth"] | None = option(
        None, "also leave the network as backbone.pth, for the authors' scripts", decides=False
    )
    keep_state: bool = option(
        True,
        "keep what the learner goes on from beside its weights: optimiser, memories, generators",
        decides=False,
    )
    logger: Literal["tensorboard", "wandb"] | None = option(
        None, "also log there, if the package is installed", decides=False
    )
    plugins: str | None = option(None, "folder with further models/*.py and datasets/*.py", decides=False)
    dry_run: bool = option(False, "print what would be done, from the options alone, and stop", decides=False)
    debug: bool = option(False, "show tracebacks of errors", decides=False)
    data_args: Any = None  # options of the dataset, resolved beside these


SEEDS = ("seed", "stream_seed", "init_seed", "train_seed")  # which repetition a run is
SMALL_NETWORKS = re.compile(r"(mlp|conv\d*|resnet18|resnet32)(-[^+]*)?$")  # names of those that begin untrained


@dataclass(kw_only=True)
class TaskArgs:
    """Options of streams of whole tasks. Other streams have none of them, in `config.yaml` neither."""

    class_order: str = option(
        "random",
        "order of the classes over the tasks: random, natural (by label), or a file with the name or the label of a "
        "class per line",
        decides=False,  # what it comes to is part of what a run reads
    )
    classes: int | None = option(None, "how many classes come at all, drawn by the stream seed; default: all", low=1)
    first_task: int = option(0, "first of the --n_tasks tasks that comes", low=0)
    last_task: int | None = option(None, "last task that comes; default: of all", low=0)
    n_iter: int | None = option(
        None, "batches per task, from an endless reshuffled stream, instead of passes", low=1, high=1_000_000
    )
    inputs: Literal["published", "network", "plain"] = option(
        "published",
        "mean and standard deviation: published: the dataset's own; network: 0.5, as Google's ViTs were trained; "
        "plain: none, and no augmentation, pixels in [0, 1]",
    )
    eval_passes: Literal["all", "last"] = option(
        "all", "evaluate after every pass over a task, or after the last one alone"
    )
    eval_ahead: bool = option(False, "evaluate the tasks to come, too, and all before the first: forward transfer")
    eval_train: bool = option(
        False, "evaluate the training images of the classes met, too, under the test transform: forgetting alone"
    )

    def coming(self, n_tasks: int) -> range:
        """Which of `n_tasks` tasks come. Raises UsageError if there are no such tasks."""
        last = n_tasks - 1 if self.last_task is None else self.last_task
        if not self.first_task <= last < n_tasks:
            given = f"--first_task {self.first_task}" + ("" if self.last_task is None else f" --last_task {last}")
            raise UsageError(
                f"{given}: the stream has tasks 0 ... {n_tasks - 1}, and the last comes not before the first"
            )
        return range(self.first_task, last + 1)


class Parser(argparse.ArgumentParser):
    """argparse that answers bad input with UsageError and unknown options with the nearest known one."""

    def __init__(self, **settings: Any):
        super().__init__(allow_abbrev=False, formatter_class=_HelpFormatter, **settings)

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does, with `~` and `~user` in front of a value as a shell takes them: only paths begin so."""
        known, unknown = super().parse_known_args(args, namespace)
        for name, value in vars(known).items():
            if isinstance(value, list):
                setattr(known, name, [_at_home(single) for single in value])
            else:
                setattr(known, name, _at_home(value))
        return known, unknown

    def parse(self, argv: list[str]) -> argparse.Namespace:
        known, unknown = self.parse_known_args(argv)
        if unknown:
            flag = unknown[0].split("=")[0]
            options = [text for action in self._actions for text in action.option_strings]
            near = difflib.get_close_matches(flag, options, n=1)
            raise UsageError(f"unknown option {flag}" + (f"; did you mean {near[0]}?" if near else "; see --help"))
        return known


class _Once(argparse.Action):
    """An option of several values: where it stands twice, none of them is passed over without a word."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        if hasattr(namespace, self.dest):
            raise UsageError(f"{option_string} stands there twice; give all of its values after one")
        setattr(namespace, self.dest, values)


class _HelpFormatter(argparse.HelpFormatter):
    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=34, width=118)


def _at_home(value: Any) -> Any:
    if not isinstance(value, str) or not value.startswith("~"):
        return value
    path = os.path.expanduser(value)
    if path.startswith("~"):
        raise UsageError(f"{value}: nobody's home is known by that name; a folder of this name is ./{value}")
    return path


def add_options(parser: argparse.ArgumentParser, title: str, cls: type, shown: Resolved | None = None) -> None:
    """Adds the options of a dataclass as one group. shown: resolved values to print in `--help` instead of defaults."""
    group = parser.add_argument_group(title)
    types_of = typing.get_type_hints(cls)
    there = {action.dest for action in parser._actions}  # a method and its host may share an option
    for field in _options(cls):
        if field.name in there:
            continue
        kind, several, choices, _ = _parse_type(types_of[field.name])
        value, origin = (field.default, "") if shown is None else shown.value_and_origin(field.name)
        origin = origin or field.metadata["source"]
        conditions = _conditions(field, cls).items()
        only = "".join(f"; with {_written(other, *fitting)}" for other, fitting in conditions)
        text = f"{field.metadata['help']}{only} [{_show(value)}{'; ' + origin if origin else ''}]".replace("%", "%%")
        settings: dict[str, Any] = {"dest": field.name, "default": argparse.SUPPRESS, "help": text}
        if kind is bool:
            settings["action"] = argparse.BooleanOptionalAction
        else:
            settings |= {"type": kind, "metavar": kind.__name__.upper()}
            if choices:
                settings |= {"choices": choices, "metavar": "{" + ",".join(choices) + "}"}
            if several:
                settings |= {"nargs": "+", "action": _Once}
        group.add_argument(f"--{field.name}", **settings)


@dataclass
class Resolved:
    """Values of one dataclass with where each comes from."""

    args: Any
    origin: dict[str, str]

    def value_and_origin(self, name: str) -> tuple[Any, str]:
        return getattr(self.args, name), self.origin.get(name, "")


def resolve(cls: type, published: list[tuple[str, dict[str, Any]]], given: dict[str, Any]) -> Resolved:
    """An instance of the dataclass `cls` with checked values.

    published: (origin, values) in rising precedence. given: values from the command line. Names that `cls` has not are
    passed over, since one list serves several dataclasses. Raises UsageError for a value out of range, or one other
    than the default that was given where it has no effect.
    """
    types_of = typing.get_type_hints(cls)
    values, origin = {}, {}
    for field in _options(cls):
        for source, table in [*published, ("command line", given)]:
            if field.name in table:
                values[field.name], origin[field.name] = table[field.name], source
        if field.name in values:
            values[field.name] = _checked(field, types_of[field.name], values[field.name])
    args = cls(**values)
    for field in _options(cls):
        if field.name in given and given[field.name] != field.default:
            _refuse_without_effect(field, args)
    return Resolved(args, origin)


def _refuse_without_effect(field: dataclasses.Field, args: Any) -> None:
    for other, fitting in _conditions(field, type(args)).items():
        if (value := getattr(args, other)) not in fitting:
            alone = _written(other, *fitting)
            raise UsageError(f"--{field.name}: has no effect with {_written(other, value)}, only with {alone}")


def _conditions(field: dataclasses.Field, cls: type) -> dict[str, tuple[Any, ...]]:
    """`where` of an option, as far as the class has the others: the one that inherits it may have fixed them."""
    names = option_names(cls)
    return {other: fitting for other, fitting in field.metadata["where"].items() if other in names}


def _written(name: str, *values: Any) -> str:
    """An option with its value as on the command line, or with one of several."""
    if values in ((True,), (False,)):
        return f"--{name}" if values[0] else f"--no-{name}"
    *others, last = map(str, values)
    return f"--{name} {', '.join(others)} or {last}" if others else f"--{name} {last}"


def restored(cls: type, values: dict[str, Any]) -> Any:
    """An instance of the dataclass `cls` from what `as_dict` gave of one, which may be somebody else's. What it does
    not say has its default. Raises UsageError for an option that `cls` has not, or a value that it cannot have."""
    if unknown := sorted(values.keys() - option_names(cls)):
        raise UsageError(f"--{', --'.join(unknown)}: unknown in this version")
    types_of = typing.get_type_hints(cls)
    checked = {}
    for field in _options(cls):
        if field.name in values:
            value = values[field.name]
            kind, several, _, _ = _parse_type(types_of[field.name])
            entries = () if value is None else value if several and isinstance(value, list) else (value,)
            fitting: tuple[type, ...] = (int, float) if kind is float else (kind,)
            if any(type(entry) not in fitting for entry in entries) or several and not isinstance(value, list | None):
                raise UsageError(f"--{field.name} {value!r:.40}: is no value of it")
            checked[field.name] = _checked(field, types_of[field.name], value)
    return cls(**checked)


def option_names(cls: type) -> set[str]:
    return {field.name for field in _options(cls)}


def option_metadata(cls: type) -> dict[str, Any]:
    """Name of every option -> what `option` was told of it, and its default."""
    return {field.name: {**field.metadata, "default": field.default} for field in _options(cls)}


def method_options(cls: type) -> list[str]:
    """Names of the options whose value is another method."""
    return [field.name for field in _options(cls) if field.metadata["method"]]


def as_dict(args: Any) -> dict[str, Any]:
    """The options of an instance as plain values for YAML or JSON."""
    values = {field.name: getattr(args, field.name) for field in _options(type(args))}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def _options(cls: type) -> list[dataclasses.Field]:
    return [field for field in dataclasses.fields(cls) if "help" in field.metadata]


def _parse_type(annotation: Any) -> tuple[type, bool, tuple[str, ...], bool]:
    """(type of one value, several values?, choices, may be None?) of an annotation."""
    optional = False
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        members = [member for member in typing.get_args(annotation) if member is not type(None)]
        optional = len(members) < len(typing.get_args(annotation))
        (annotation,) = members
    several = typing.get_origin(annotation) is tuple
    if several:
        annotation = typing.get_args(annotation)[0]
    choices: tuple[str, ...] = ()
    if typing.get_origin(annotation) is Literal:
        choices = typing.get_args(annotation)
        annotation = str
    return annotation, several, choices, optional


def _checked(field: dataclasses.Field, annotation: Any, value: Any) -> Any:
    kind, several, choices, optional = _parse_type(annotation)
    if value is None:
        if not optional:
            raise UsageError(f"--{field.name} needs a value")
        return None
    for single in value if several else (value,):
        if choices and single not in choices:
            raise UsageError(f"--{field.name} {single}: choose from {', '.join(choices)}")
        if kind is float and not math.isfinite(single):
            raise UsageError(f"--{field.name} {single}: must be a finite number")
        low, high = field.metadata["low"], field.metadata["high"]
        if (low is not None and single < low) or (high is not None and single > high):
            limits = f"at least {low}" if high is None else f"at most {high}" if low is None else f"in {low} ... {high}"
            raise UsageError(f"--{field.name} {single}: must be {limits}")
        if kind is int and abs(single) > LARGEST:
            raise UsageError(f"--{field.name} {single}: numbers go up to {LARGEST}")
    return tuple(value) if several else value


def _show(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return "unset" if value is None else str(value)
