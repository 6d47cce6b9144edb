"""From a command line to a plan: which method, which dataset, every option resolved and checked. Builds nothing."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from utils.args import SEEDS, Parser, Resolved, RunArgs, add_options, as_dict, method_options, option_names, resolve
from utils.errors import UsageError
from utils.fields import FORBIDDEN
from utils.registry import DATASETS, METHODS, add_plugins

HELP = ("-h", "--help")


@dataclass(frozen=True)
class Plan:
    """One run, or one per seed. method: its class. data: options of the dataset, None if none is named. host: options
    of the method named by one of its options, if any."""

    method: type
    run: Resolved
    args: Resolved
    data: Resolved | None = None
    host: Resolved | None = None

    def part(self, name: str) -> Any:
        """Options of the run, method, host or data; None where there are none."""
        resolved = {"run": self.run, "method": self.args, "host": self.host, "data": self.data}[name]
        return resolved and resolved.args

    def seeds(self) -> tuple[int, ...]:
        return self.run.args.seeds or (self.run.args.seed,)

    def with_seed(self, seed: int) -> Plan:
        """The plan of one run: seed sets the stream, initialisation and training seeds that were not set apart."""
        args = self.run.args
        single = {name: seed if getattr(args, name) is None else getattr(args, name) for name in SEEDS[1:]}
        return replace(self, run=replace(self.run, args=replace(args, seed=seed, seeds=None, **single)))

    def with_option(self, name: str, value: Any, origin: str) -> Plan:
        """The same plan with another value of an option of the run."""
        run = replace(self.run, args=replace(self.run.args, **{name: value}), origin=self.run.origin | {name: origin})
        return replace(self, run=run)

    def settings(self) -> dict[str, Any]:
        """All options and where each value that is no plain default comes from, for `config.yaml`."""
        settings = {"run": as_dict(self.run.args), "method": as_dict(self.args.args)}
        origin = self.run.origin | self.args.origin
        if self.data is not None and option_names(type(self.data.args)):
            settings["data"] = as_dict(self.data.args)
            origin = self.data.origin | origin
        if self.host is not None:
            settings["host"] = as_dict(self.host.args)
            origin = self.host.origin | origin
        return settings | {"origin": origin}


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
    hosts = [_load_host(option, name) for option, name in _hosts_named(method, words).items()]
    parser = Parser(prog="main.py", add_help=False)
    data = [DATASETS.load(chosen.dataset).Args] if chosen.dataset else []
    for cls in (RunArgs, method.Args, *(host.Args for host in hosts), *data):
        add_options(parser, cls.__name__, cls)
    plan = make(vars(parser.parse(words)))
    return method_help(plan) if wants_help else plan


def _hosts_named(method: type, words: list[str]) -> dict[str, str]:
    """Names of the methods that the options of `method` name, on the command line or by default, by option."""
    names = {}
    for option in method_options(method.Args):
        parser = Parser(add_help=False)
        parser.add_argument(f"--{option}", default=getattr(method.Args(), option))
        names[option] = getattr(parser.parse_known_args(words)[0], option)
    return names


def _load_host(option: str, name: str) -> type:
    """The class of a method that learns a stream by itself, so that another can wrap it."""
    host = METHODS.load(name)
    if method_options(host.Args) or "si-blurry" not in host.scenarios:
        raise UsageError(f"--{option} {METHODS.resolve(name)}: this method does not learn a stream by itself")
    return host


def make(given: dict[str, Any]) -> Plan:
    """Resolves the options of a run. given: option -> value as on the command line, `model` among them."""
    name = METHODS.resolve(given["model"])
    dataset = DATASETS.resolve(given["dataset"]) if given.get("dataset") else ""
    given = given | {"model": name, "dataset": dataset}
    method = METHODS.load(name)
    fitting = _fitting(dataset)
    backbone = given.get("backbone") or fitting[0][1].get("backbone") or RunArgs().backbone
    published = [*fitting, *_published(method, name, dataset, backbone)]
    args = resolve(method.Args, published, given)
    data = resolve(DATASETS.load(dataset).Args, published, given) if dataset else None
    host, known = None, option_names(RunArgs) | option_names(method.Args)
    known |= option_names(type(data.args)) if data else set()
    for option in method_options(method.Args):
        host_name = METHODS.resolve(getattr(args.args, option))
        host_class = _load_host(option, host_name)
        own = _published(method, name, dataset, backbone, host_name)
        published = [*fitting, *_published(host_class, host_name, dataset, backbone), *own]
        known |= option_names(host_class.Args)
        host = resolve(host_class.Args, published, given)
        args = resolve(method.Args, published, given)
        setattr(args.args, option, host_name)
        args.args.host_args = host.args
    for origin, table in published:
        for option in table.keys() - known:
            raise UsageError(f"{origin}: published sets {option}, which is no option of the method or the run")
    run = resolve(RunArgs, published, given)
    run.args.data_args = data and data.args
    _follow_tasks(method, args, run.args)
    if host is not None:
        _follow_tasks(host_class, host, run.args)
    _check(method, run.args)
    return Plan(method, run, args, data, host)


def _follow_tasks(method: type, resolved: Resolved, run: RunArgs) -> None:
    """Gives the options of which a method has one per task the number of tasks, where nothing else sets them."""
    for name in method.one_per_task:
        if name not in resolved.origin:
            setattr(resolved.args, name, run.n_tasks)


def _fitting(dataset: str) -> list[tuple[str, dict[str, Any]]]:
    """Options of the run that a dataset sets for its size."""
    return [(dataset, DATASETS.load(dataset).settings)] if dataset else [("", {})]


def _published(
    method: type, name: str, dataset: str, backbone: str, host: str | None = None
) -> list[tuple[str, dict[str, Any]]]:
    """Values set beside a method, in rising precedence: for all runs, with a host, for the network, for the dataset,
    for host and dataset.
    """
    tables = [(name, "*"), (f"{name} on {backbone}", f"backbone {backbone}"), (f"{name} on {dataset}", dataset)]
    if host is not None:
        tables.insert(1, (f"{name} with {host}", f"host {host}"))
        tables.append((f"{name} with {host} on {dataset}", f"host {host} on {dataset}"))
    return [(origin, method.published.get(key, {})) for origin, key in tables]


def _check(method: type, run: RunArgs) -> None:
    """Settings that exclude each other."""
    if run.scenario is None:
        run.scenario = method.scenarios[0]
    if run.scenario not in method.scenarios:
        raise UsageError(f"--scenario {run.scenario}: {run.model} runs on {' or '.join(method.scenarios)}")
    if run.class_order != "random" and run.scenario != "class-il":
        raise UsageError(f"--class_order {run.class_order}: only --scenario class-il takes an order of classes")
    domains = DATASETS.load(run.dataset).max_domains if run.dataset else 0
    if run.dataset and (run.scenario == "domain-il") != (domains > 0):
        kind = "comes in domains, --scenario domain-il" if domains else "has no domains"
        raise UsageError(f"--scenario {run.scenario}: {run.dataset} {kind}")
    if domains and run.n_tasks > domains:
        raise UsageError(f"--n_tasks {run.n_tasks}: {run.dataset} has at most {domains} domains")
    if run.seeds is not None and len(set(run.seeds)) < len(run.seeds):
        raise UsageError(f"--seeds {' '.join(map(str, run.seeds))}: a seed stands there twice")
    if run.resume not in ("auto", "never") and not os.path.isfile(Path(run.resume, "config.yaml")):
        raise UsageError(f"--resume {run.resume}: neither auto, never, nor the folder of a run (with a config.yaml)")
    if run.resume not in ("auto", "never") and len(run.seeds or ()) > 1:
        raise UsageError(f"--resume {run.resume}: is one run; --seeds {' '.join(map(str, run.seeds))} asks for several")
    if run.eval_period == 0:
        raise UsageError("--eval_period 0: give a number of images, or a negative number for none")


def overview() -> str:
    """The text of `python main.py --help`: every method and dataset with one line each, and the common options."""
    lines = ["usage: python main.py --model METHOD --dataset DATASET [options]", ""]
    for title, registry in (("methods (--model)", METHODS), ("datasets (--dataset)", DATASETS)):
        names = registry.files()
        width = max(map(len, names))
        lines += [f"{title}:", *(f"  {name:{width}}  {registry.describe(name)}" for name in names), ""]
    lines.append("python main.py --model METHOD --help shows the method's own options with their defaults and sources.")
    parser = Parser(add_help=False, usage="\n".join(lines).removeprefix("usage: ").replace("%", "%%"))
    add_options(parser, "options of every run", RunArgs)
    return parser.format_help().rstrip()


def method_help(plan: Plan) -> str:
    """The text of `python main.py --model X [--dataset Y] --help`: each option with the value it would have."""
    run = plan.run.args
    document = (sys.modules[plan.method.__module__].__doc__ or "").strip()
    usage = f"python main.py --model {run.model} --dataset {run.dataset or 'DATASET'} [options]\n\n{document}"
    parser = Parser(add_help=False, usage=usage.replace("%", "%%"))
    add_options(parser, f"options of {run.model}", type(plan.args.args), plan.args)
    if plan.host is not None:
        add_options(parser, "options of its host", type(plan.host.args), plan.host)
    if plan.data is not None:
        add_options(parser, f"options of {run.dataset}", type(plan.data.args), plan.data)
    add_options(parser, "options of every run", RunArgs, plan.run)
    return parser.format_help().rstrip()
