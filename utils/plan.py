"""From a command line to a plan: which method, which dataset, every option resolved and checked. Builds nothing."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils import args
from utils.args import (
    SEEDS,
    SMALL_NETWORKS,
    WHOLE_TASKS,
    Parser,
    Resolved,
    RunArgs,
    TaskArgs,
    add_options,
    as_dict,
    method_options,
    option_metadata,
    option_names,
    resolve,
)
from utils.errors import FORBIDDEN, UsageError
from utils.registry import DATASETS, METHODS, add_plugins, commands

if TYPE_CHECKING:  # it needs torch, which --help does not wait for
    from utils.contracts import Images, Learner

PARTS = ("run", "tasks", "method", "host", "data")  # of the options of a run
HELP = ("-h", "--help")


@dataclass(frozen=True)
class Plan:
    """One run, or one per seed. method, dataset: their classes, the latter as the data make it. run, method_args, host,
    data, tasks: options of the run, of the method, of the method that one of its options names, of the dataset, and of
    a stream of whole tasks; None where there are none. origins: by part and option, where each value that is no plain
    default comes from.
    """

    method: type[Learner]
    run: RunArgs
    method_args: Any
    host: Any = None
    data: Any = None
    tasks: TaskArgs | None = None
    origins: dict[str, dict[str, str]] = field(default_factory=dict)
    dataset: type[Images] | None = None

    def parts(self) -> dict[str, Any]:
        """The options that there are, by PARTS."""
        named = zip(PARTS, (self.run, self.tasks, self.method_args, self.host, self.data))
        return {part: options for part, options in named if options is not None}

    def seeds(self) -> tuple[int, ...]:
        return self.run.seeds or (self.run.seed,)

    def with_seed(self, seed: int) -> Plan:
        """The plan of one run: seed sets the stream, initialisation and training seeds that were not set apart."""
        single: dict[str, Any] = {
            name: seed if getattr(self.run, name) is None else getattr(self.run, name) for name in SEEDS[1:]
        }
        return replace(self, run=replace(self.run, seed=seed, seeds=None, **single))

    def with_option(self, name: str, value: Any, origin: str) -> Plan:
        """The same plan with another value of an option of the run."""
        origins = self.origins | {"run": self.origins["run"] | {name: origin}}
        return replace(self, run=replace(self.run, **{name: value}), origins=origins)

    def settings(self) -> dict[str, Any]:
        """All options and where each value that is no plain default comes from, for `config.yaml`."""
        parts = self.parts()
        if self.data is not None and not option_names(type(self.data)):
            del parts["data"]
        origin: dict[str, str] = {}
        for part in (
            "host",
            "data",
            "tasks",
            "run",
            "method",
        ):  # the name of an option that several have stands for the last
            origin |= self.origins.get(part, {}) if part in parts else {}
        order = [part for part in ("run", "tasks", "method", "data", "host") if part in parts]
        return {part: as_dict(parts[part]) for part in order} | {"origin": origin}


def parse(argv: list[str]) -> Plan | str:
    """The plan of a command line, or the help text it asks for."""
    if odd := [word for word in argv if FORBIDDEN.search(word)]:
        raise UsageError(f"{odd[0]!r}: no option, name or path here has a line break or another control character")
    if empty := [word for word in argv if word.startswith("--") and word.endswith("=--")]:
        raise UsageError(f"{empty[0]}: -- is no value")  # argparse would make an empty list of it
    words = [word for word in argv if word not in HELP]
    wants_help = len(words) < len(argv)
    first = Parser(add_help=False)
    for name in ("model", "dataset", "plugins"):
        first.add_argument(f"--{name}")
    chosen, _ = first.parse_known_args(words)
    if chosen.plugins:
        add_plugins(chosen.plugins)
    if not chosen.model:
        if wants_help or not words:
            return overview()
        raise UsageError("--model is missing; python main.py --help lists the methods")
    METHODS.resolve(chosen.model)  # wrong names are answered before anything heavy is imported
    if chosen.dataset:
        DATASETS.resolve(chosen.dataset)
    elif not wants_help:
        raise UsageError("--dataset is missing; python main.py --help lists the datasets")

    method = METHODS.load(chosen.model)
    hosts = [_load_host(method, option, name) for option, name in _hosts_named(method, words).items()]
    parser = Parser(prog="main.py", add_help=False)
    data = [DATASETS.load(chosen.dataset).Args] if chosen.dataset else []
    for cls in (RunArgs, TaskArgs, method.Args, *(host.Args for host in hosts), *data):
        add_options(parser, cls.__name__, cls)
    plan = make(vars(parser.parse(words)))
    return method_help(plan) if wants_help else plan


def _hosts_named(method: type[Learner], words: list[str]) -> dict[str, str]:
    """Names of the methods that the options of `method` name, on the command line or by default, by option."""
    names = {}
    for option in method_options(method.Args):
        parser = Parser(add_help=False)
        parser.add_argument(f"--{option}", default=getattr(method.Args(), option))
        names[option] = getattr(parser.parse_known_args(words)[0], option)
    return names


def _load_host(method: type[Learner], option: str, name: str) -> type[Learner]:
    """The class of a method that learns a stream by itself, so that `method` can wrap it."""
    host = METHODS.load(name)
    if method_options(host.Args):
        raise UsageError(f"--{option} {METHODS.resolve(name)}: this method does not learn a stream by itself")
    if "si-blurry" not in host.scenarios:
        own = " or ".join(host.scenarios)
        raise UsageError(f"--{option} {METHODS.resolve(name)}: runs on {own}, and a method to wrap on si-blurry")
    if why := method.cannot_wrap(host):
        raise UsageError(f"--{option} {METHODS.resolve(name)}: {why}")
    return host


def make(given: dict[str, Any]) -> Plan:
    """Resolves the options of a run. given: option -> value as on the command line, `model` among them."""
    name = METHODS.resolve(given["model"])
    dataset = DATASETS.resolve(given["dataset"]) if given.get("dataset") else ""
    given = given | {"model": name, "dataset": dataset}
    data = Path(given.get("data_dir", RunArgs.data_dir))
    method, data_class = METHODS.load(name), DATASETS.load(dataset).at(data) if dataset else None
    fitting = data_class.settings if data_class else {}
    variant = " ".join(str(given.get(option, getattr(method.Args(), option))) for option in method.variants)
    backbone = resolve(RunArgs, precedence(name, dataset, fitting, variant=variant), given).args.backbone
    if data_class and SMALL_NETWORKS.match(backbone):
        fitting = fitting | data_class.small_settings
    tables = precedence(name, dataset, fitting, backbone, variant=variant)
    options = {"method": resolve(method.Args, tables, given)}
    for option in method_options(method.Args):
        host_name = METHODS.resolve(getattr(options["method"].args, option))
        host = _load_host(method, option, host_name)
        tables = precedence(name, dataset, fitting, backbone, host_name, variant)
        options = {"method": resolve(method.Args, tables, given), "host": resolve(host.Args, tables, given)}
        setattr(options["method"].args, option, host_name)
        options["method"].args.host_args = options["host"].args
    if data_class:
        options["data"] = resolve(data_class.Args, tables, given)
    options["run"] = resolve(RunArgs, tables, given)
    known = set().union(option_names(TaskArgs), *(option_names(type(part.args)) for part in options.values()))
    for origin, table in tables:
        for option in table.keys() - known:
            raise UsageError(f"{origin}: published sets {option}, which is no option of the method or the run")
        for option in table.keys() & {*method.variants}:
            raise UsageError(f"{origin}: published sets {option}, whose value says which of its entries hold")
    run = options["run"].args
    run.data_args = options["data"].args if data_class else None
    count = run.n_tasks
    if run.scenario in WHOLE_TASKS:
        options["tasks"] = resolve(TaskArgs, tables, given)
        count = len(options["tasks"].args.coming(run.n_tasks))
        _batches_or_passes(options, given)
    elif others := [option for option in given if option in option_names(TaskArgs)]:
        raise UsageError(
            f"--{others[0]} {given[others[0]]}: only streams of whole tasks take it (--scenario "
            f"{', '.join(WHOLE_TASKS)}), and this one is {run.scenario}"
        )
    for part, kind in (("method", method), *((("host", host),) if "host" in options else ())):
        for option in kind.one_per_task:
            if option not in options[part].origin:
                setattr(options[part].args, option, count)
    parts = {part: resolved.args for part, resolved in options.items()}
    origins = {part: resolved.origin for part, resolved in options.items()}
    own = parts["method"], parts.get("host"), parts.get("data"), parts.get("tasks")
    plan = Plan(method, run, *own, origins, data_class)
    _check(plan)
    return plan


def _batches_or_passes(options: dict[str, Resolved], given: dict[str, Any]) -> None:
    """`--n_iter` replaces `--n_epochs`, whichever of the two is on the command line."""
    tasks, run = options["tasks"].args, options["run"].args
    if tasks.n_iter is None:
        return
    if "n_iter" in given and run.n_epochs > 1 and "n_epochs" in given:
        raise UsageError(f"--n_iter {tasks.n_iter}: counts batches instead of the passes of --n_epochs {run.n_epochs}")
    if "n_epochs" in given and "n_iter" not in given:
        tasks.n_iter = None
        options["tasks"].origin.pop("n_iter", None)
    elif run.n_epochs > 1:
        run.n_epochs = 1
        options["run"].origin.pop("n_epochs", None)


def restored(config: dict[str, Any]) -> Plan:
    """The plan of a run from what `settings` wrote of it, as far as the options of this version go. A dataset that is
    not known here is left out, with its options. Raises UsageError for anything else."""
    sections = {part: config.get(part) or {} for part in PARTS}
    run = args.restored(RunArgs, sections["run"])
    method = METHODS.load(run.model)
    parts: dict[str, Any] = {"method": args.restored(method.Args, sections["method"]), "host": None, "data": None}
    for option in method_options(method.Args):
        host = _load_host(method, option, getattr(parts["method"], option))
        parts["host"] = args.restored(host.Args, sections["host"])
        parts["method"].host_args = parts["host"]
    dataset = None
    if DATASETS.is_known(run.dataset):
        dataset = DATASETS.load(run.dataset)
        parts["data"] = run.data_args = args.restored(dataset.Args, sections["data"])
    tasks = args.restored(TaskArgs, sections["tasks"]) if config.get("tasks") is not None else None
    own = parts["method"], parts["host"], parts["data"], tasks
    return Plan(method, run, *own, {}, dataset).with_seed(run.seed)


def precedence(
    name: str, dataset: str, fitting: dict[str, Any], backbone: str = "", host: str = "", variant: str = ""
) -> list[tuple[str, dict[str, Any]]]:
    """Where options get their values from, in rising precedence: above their defaults, below the command line.

    Each table with how its origin is called. fitting: settings of the dataset. host: the method that `name` wraps, if
    it wraps one. variant: values of the method's `variants`, joined by a space.
    """
    layers = [
        ("host", host, "*"),
        ("host", f"{host} on {backbone}", f"backbone {backbone}"),
        ("host", f"{host} on {dataset}", dataset),
        ("method", name, "*"),
        ("variant", f"{name} {variant}", variant),
        ("wrapper", f"{name} with {host}", f"host {host}"),
        ("method", f"{name} on {backbone}", f"backbone {backbone}"),
        ("wrapper", f"{name} with {host} on {backbone}", f"host {host} on backbone {backbone}"),
        ("method", f"{name} on {dataset}", dataset),
        ("variant", f"{name} {variant} on {dataset}", f"{variant} on {dataset}"),
        ("wrapper", f"{name} with {host} on {dataset}", f"host {host} on {dataset}"),
    ]
    own = METHODS.load(name).published
    published = {"method": own, "wrapper": own if host else {}, "variant": own if variant else {}}
    published["host"] = METHODS.load(host).published if host else {}
    found = [(origin, published[whose].get(key, {})) for whose, origin, key in layers]
    return [(name, {"scenario": METHODS.load(name).scenarios[0]}), (dataset, fitting), *found]


def _check(plan: Plan) -> None:
    """Settings that exclude each other."""
    method, run, tasks = plan.method, plan.run, plan.tasks
    if run.scenario not in method.scenarios:
        origin = plan.origins["run"].get("scenario", "command line")
        whose = "" if origin == "command line" else f"; {run.scenario} is that of {origin}"
        raise UsageError(f"--scenario {run.scenario}: {run.model} runs on {' or '.join(method.scenarios)}{whose}")
    if tasks is not None and tasks.class_order != "random" and run.scenario == "domain-il":
        raise UsageError(f"--class_order {tasks.class_order}: the tasks of --scenario domain-il share their classes")
    if not method.evaluated and _is_other(plan, "eval_mask"):
        raise UsageError(f"--eval_mask {run.eval_mask}: {run.model} is not evaluated; leave it out")
    if plan.dataset and plan.dataset.num_targets is not None:
        _check_targets(plan)
    domains = plan.dataset.max_domains if plan.dataset else 0
    if run.dataset and (run.scenario == "domain-il") != (domains > 0):
        kind = "comes in domains, --scenario domain-il" if domains else "has no domains"
        raise UsageError(f"--scenario {run.scenario}: {run.dataset} {kind}")
    if plan.dataset and plan.dataset.tasks is not None:
        _check_own_tasks(plan, len(plan.dataset.tasks))
    if domains and run.n_tasks > domains:
        raise UsageError(f"--n_tasks {run.n_tasks}: {run.dataset} has at most {domains} domains")
    if run.seeds is not None and len(set(run.seeds)) < len(run.seeds):
        raise UsageError(f"--seeds {' '.join(map(str, run.seeds))}: a seed stands there twice")
    if run.resume not in ("auto", "never") and not os.path.isfile(Path(run.resume, "config.yaml")):
        raise UsageError(f"--resume {run.resume}: neither auto, never, nor the folder of a run (with a config.yaml)")
    if run.resume not in ("auto", "never") and run.seeds is not None and len(run.seeds) > 1:
        raise UsageError(f"--resume {run.resume}: is one run; --seeds {' '.join(map(str, run.seeds))} asks for several")
    place = getattr(plan.method_args, "save_to", None)
    if place is not None and run.seeds is not None and len(run.seeds) > 1:
        raise UsageError(f"--save_to {place}: is for what one run makes; --seeds asks for {len(run.seeds)} runs")
    if run.eval_period == 0:
        raise UsageError("--eval_period 0: give a number of images, or a negative number for none")


def _is_other(plan: Plan, name: str) -> bool:
    """Whether an option of the run was given on the command line, and another value than its default."""
    typed = plan.origins["run"].get(name) == "command line"
    return typed and getattr(plan.run, name) != option_metadata(RunArgs)[name]["default"]


def _check_targets(plan: Plan) -> None:
    """Of data with numbers to predict: settings that need classes."""
    method, run = plan.method, plan.run
    if "numbers" not in method.predicts:
        raise UsageError(f"--model {run.model}: predicts classes, and {run.dataset} has numbers to predict")
    if _is_other(plan, "eval_mask"):
        raise UsageError(f"--eval_mask {run.eval_mask}: masks classes, and {run.dataset} has numbers to predict")
    if plan.tasks is not None and plan.tasks.eval_ahead:
        raise UsageError(f"--eval_ahead: compares accuracies, and {run.dataset} has numbers to predict")
    if plan.tasks is not None and plan.tasks.eval_train:
        raise UsageError(f"--eval_train: measures an accuracy, and {run.dataset} has numbers to predict")


def _check_own_tasks(plan: Plan, count: int) -> None:
    """Of data that come in `count` tasks: settings that would make others."""
    run, tasks = plan.run, plan.tasks
    if tasks is None:
        if run.scenario != "shuffled":  # which has no tasks at all
            raise UsageError(
                f"--scenario {run.scenario}: {run.dataset} comes in tasks of its own, --scenario task-il or class-il"
            )
        return
    if run.n_tasks != count:
        raise UsageError(
            f"--n_tasks {run.n_tasks}: the file holds {count} tasks; take some of them with --first_task and "
            "--last_task"
        )
    if tasks.class_order != "random":
        raise UsageError(f"--class_order {tasks.class_order}: {run.dataset} comes in tasks of its own")
    if tasks.classes is not None:
        raise UsageError(f"--classes {tasks.classes}: {run.dataset} comes in tasks of its own")


def overview() -> str:
    """The text of `python main.py --help`: every method and dataset with one line each, and the common options."""
    lines = ["usage: python main.py --model METHOD --dataset DATASET [options]", ""]
    for title, registry in (("methods (--model)", METHODS), ("datasets (--dataset)", DATASETS)):
        names = registry.files()
        width = max(map(len, names))
        lines += [f"{title}:", *(f"  {name:{width}}  {registry.describe(name)}" for name in names), ""]
    lines += ["commands (python main.py COMMAND ...):"]
    width = max(map(len, commands()))
    lines += [*(f"  {name:{width}}  {text}" for name, text in commands().items()), ""]
    lines.append("python main.py --model METHOD --help shows the method's own options with their defaults and sources.")
    parser = Parser(add_help=False, usage="\n".join(lines).removeprefix("usage: ").replace("%", "%%"))
    add_options(parser, "options of every run", RunArgs)
    add_options(parser, f"options of streams of whole tasks (--scenario {', '.join(WHOLE_TASKS)})", TaskArgs)
    return parser.format_help().rstrip()


def method_help(plan: Plan) -> str:
    """The text of `python main.py --model X [--dataset Y] --help`: each option with the value it would have."""
    run = plan.run
    document = (sys.modules[plan.method.__module__].__doc__ or "").strip()
    usage = f"python main.py --model {run.model} --dataset {run.dataset or 'DATASET'} [options]\n\n{document}"
    parser = Parser(add_help=False, usage=usage.replace("%", "%%"))
    titles = {
        "method": f"options of {run.model}",
        "host": "options of its host",
        "data": f"options of {run.dataset}",
        "tasks": f"options of the stream, {run.scenario}",
        "run": "options of every run",
    }
    for part, title in titles.items():
        if part in plan.parts():
            options = plan.parts()[part]
            add_options(parser, title, type(options), Resolved(options, plan.origins[part]))
    return parser.format_help().rstrip()
