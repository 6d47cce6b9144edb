"""Whatever a command line or the settings of a stream hold: a plan or one line, a stream or one line, no traceback.

Values come from hypothesis and the declared options, the same ones in every run.
"""

from __future__ import annotations

import typing
from types import SimpleNamespace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import main
from utils import plan as plans
from utils.args import LARGEST, RunArgs, TaskArgs, _parse_type, as_dict, method_options, option_names
from utils.classes import SeenClasses
from utils.errors import UsageError
from utils.registry import DATASETS, METHODS
from utils.streams import make_stream

MODELS, DATA = list(METHODS.files()), list(DATASETS.files())
ODD = [
    "", " ", "text", "None", "nan", "inf", "-inf", "1e3", "1e308", "1e-320", "-0.0", "0x10", "1_0", "+5", "１２", "½",
    "0", "-1", "9" * 5000, str(10**30), f"-{10**30}", str(LARGEST), str(LARGEST + 1), "-", "--", "-x", "--n", "=", "%s",
    "{0}", "'\"", "@file", "one\ntwo", "one\u2028two", "\x1b[31m", "x" * 300, "..", "/", "~", "--help", "True",
]  # fmt: skip
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)


def examples(count: int):
    """Of a property, the same in every run."""
    return settings(
        max_examples=count, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )


def options_of(*classes: type) -> dict:
    """Name -> (field, type of one value, several?, choices) of all options of these dataclasses."""
    found = {}
    for cls in classes:
        types_of = typing.get_type_hints(cls)
        for name in sorted(option_names(cls)):
            field = cls.__dataclass_fields__[name]
            found[name] = (field, *_parse_type(types_of[name])[:3])
    return found


def values_of(field, kind: type, several: bool, choices: tuple) -> st.SearchStrategy[list[str]]:
    """Words that may follow an option: good ones, those at its limits and beyond, and nonsense."""
    low, high = field.metadata["low"], field.metadata["high"]
    edges = [limit + step for limit in (low, high) if limit is not None for step in (-1, 0, 1)]
    one = st.sampled_from([*choices, *map(str, edges), str(field.default), *ODD]) | TEXT
    one |= st.integers(-5, 300).map(str) | st.floats(-2, 2).map(str)
    return st.lists(one, max_size=4) if several else st.lists(one, min_size=1, max_size=1) | st.lists(one, max_size=2)


@st.composite
def command_lines(draw, model: str) -> list[str]:
    dataset = draw(st.sampled_from(DATA))
    method = METHODS.load(model)
    hosts = [METHODS.load(getattr(method.Args(), name)).Args for name in method_options(method.Args)]
    options = options_of(RunArgs, TaskArgs, method.Args, *hosts, DATASETS.load(dataset).Args)
    words = ["--model", model, "--dataset", dataset]
    for name in draw(st.lists(st.sampled_from(sorted(options)), max_size=4)):
        field, kind, several, choices = options[name]
        if kind is bool:
            words.append(draw(st.sampled_from([f"--{name}", f"--no-{name}", f"--{name}=1"])))
        else:
            values = draw(values_of(field, kind, several, choices))
            words += [f"--{name}={values[0]}"] if draw(st.booleans()) and values else [f"--{name}", *values]
    return words + draw(st.lists(st.sampled_from(ODD) | TEXT, max_size=1))


def parsed(words: list[str]) -> plans.Plan | str | None:
    """The plan or the help, or None after one line that says what is wrong."""
    try:
        return plans.parse(words)
    except UsageError as error:
        assert str(error).strip() and len(str(error).splitlines()) == 1, words
        return None


@pytest.mark.parametrize("model", MODELS)
def test_any_command_line_gives_a_plan_or_one_line(model):
    outcomes = []

    @examples(40)
    @given(command_lines(model))
    def check(words):
        plan = parsed(words)
        outcomes.append(plan is not None)
        if isinstance(plan, plans.Plan):
            for args in (plan.run, plan.method_args):
                for name, (field, kind, several, choices) in options_of(type(args)).items():
                    value = getattr(args, name)
                    for single in value if several and value is not None else (value,):
                        low, high = field.metadata["low"], field.metadata["high"]
                        assert single is None or type(single) in (kind, int) or choices
                        assert single is None or low is None or low <= single
                        assert single is None or high is None or single <= high

    check()
    assert any(outcomes) and not all(outcomes)


@pytest.mark.parametrize("model", MODELS)
def test_every_option_alone_at_its_limits_and_beyond(model):
    options = options_of(METHODS.load(model).Args, *([RunArgs, TaskArgs] if model == "er" else []))
    for name, (field, kind, several, _) in options.items():
        limits = [limit for limit in (field.metadata["low"], field.metadata["high"]) if limit is not None]
        words = ["--", "", "text", "nan", "-inf", "1e3", str(LARGEST + 1), str(10**400)]
        words += [str(limit + step) for limit in limits for step in (-1, 0, 1)]
        for word in words:
            plan = parsed(["--model", model, "--dataset", "seq-digits", f"--{name}={word}"])
            if isinstance(plan, plans.Plan) and kind in (int, float):
                value = getattr(plan.method_args if hasattr(plan.method_args, name) else plan.run, name)
                value = value[0] if several else value
                low, high = field.metadata["low"], field.metadata["high"]
                assert (low is None or value >= low) and (high is None or value <= high)


@examples(100)
@given(st.lists(st.sampled_from(["--model", "--dataset", "--plugins", *MODELS, *DATA, *ODD]) | TEXT, max_size=6))
def test_any_words_are_answered(words):
    parsed(words)


@examples(60)
@given(st.sampled_from(MODELS), st.sampled_from(DATA), st.data())
def test_a_misspelt_word_is_answered_with_the_nearest(model, dataset, data):
    options = sorted(option_names(RunArgs) | option_names(TaskArgs) | option_names(METHODS.load(model).Args))
    right = data.draw(st.sampled_from([model, dataset, *(f"--{name}" for name in options if len(name) > 4)]))
    place = data.draw(st.integers(len(right) // 2, len(right) - 1))
    wrong = right[:place] + "_" + right[place:]
    words = ["--model", wrong if right == model else model, "--dataset", wrong if right == dataset else dataset]
    with pytest.raises(UsageError) as refusal:
        plans.parse([*words, *([wrong, "1"] if right.startswith("--") else [])])
    assert "did you mean " in str(refusal.value) and len(str(refusal.value).splitlines()) == 1


@pytest.mark.parametrize("model", MODELS)
def test_a_dry_run_answers_and_writes_nothing(model, tmp_path, monkeypatch, capsys):
    """Sizes among them that no memory holds."""
    monkeypatch.chdir(tmp_path)

    @examples(5)
    @given(command_lines(model))
    def check(words):
        words = [word for word in words if word != "--debug"]  # which shows tracebacks
        code = main.main([*words, "--backbone", "vit_tiny_glyphs", "--dry_run"])
        out, error = capsys.readouterr()
        assert "Traceback" not in error
        assert (code == 0 and out) or (code == 2 and error.startswith("error: "))
        assert not list(tmp_path.iterdir())

    check()


@pytest.mark.parametrize("model", ["dualprompt", "l2p"])  # one fails when it is made, the other when it is used
def test_sizes_that_cannot_be_built_are_one_line(model, capsys):
    sizes = ["--e_pool", str(LARGEST if model == "dualprompt" else 10), "--len_e_prompt", str(LARGEST)]
    assert main.main(["--model", model, "--dataset", "seq-digits", *sizes, "--dry_run"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: these options make tensors that no memory holds (") and error.count("\n") == 1


@examples(60)
@given(st.sampled_from([m for m in MODELS if not method_options(METHODS.load(m).Args)]), st.data())
def test_settings_of_a_plan_given_again_make_the_same_plan(model, data):
    plan = parsed(data.draw(command_lines(model)))
    if isinstance(plan, plans.Plan):
        values = {name: value for part in plan.parts().values() for name, value in as_dict(part).items()}
        again = plans.make({name: value for name, value in values.items() if value is not None}).settings()
        assert {**again, "origin": None} == {**plan.settings(), "origin": None}


# Streams

OWN = {
    "shuffled": st.fixed_dictionaries({}, optional={"samples": st.none() | st.integers(1, 9)}),
    "episodes": st.fixed_dictionaries(
        {name: st.integers(1, 9) for name in ("group_size", "num_pseudo_tasks", "samples")}
        | {name: st.integers(1, 3) for name in ("meta_epochs", "repetitions")}
    ),
    "adaptation": st.fixed_dictionaries(
        {name: st.integers(1, 5) for name in ("updates", "num_sessions", "forget_classes")}
        | {"session_share": st.floats(0, 1), "samples": st.none() | st.integers(1, 9)}
    ),
    "trajectories": st.fixed_dictionaries(
        {name: st.integers(1, 4) for name in ("steps", "tasks", "update_step")}
        | {name: st.integers(0, 4) for name in ("meta_batch", "held_out")}
        | {"query": st.sampled_from(["split", "paper", "minibatch"])}
    ),
}


@st.composite
def stream_settings(draw, scenario: str):
    """Options of a run, labels [N] with rare and missing classes, and the number of classes."""
    num_classes = draw(st.integers(1, 25))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    counts = torch.tensor([0, 1, 1, 2, 5, 20])[torch.randint(6, (num_classes,), generator=generator)]
    if scenario == "trajectories":  # which need several images of every class
        counts += 5
    targets = torch.arange(num_classes).repeat_interleave(counts)
    targets = targets[torch.randperm(len(targets), generator=generator)]
    options = SimpleNamespace(
        scenario=scenario,
        dataset="made",
        n_tasks=draw(st.integers(1, 12)),
        n=draw(st.integers(0, 101)),
        m=draw(st.integers(0, 100)),
        varying=draw(st.booleans()),
        n_epochs=draw(st.integers(1, 2)),
        batch_size=draw(st.integers(1, 3 if scenario == "trajectories" else 70)),
        stream_seed=draw(st.integers(0, LARGEST)),
    )
    if scenario == "domain-il":
        targets = torch.cat([targets + domain * num_classes for domain in range(options.n_tasks)])
    return options, targets, num_classes, draw(OWN.get(scenario, st.just({})))


def left_out(options, stream, targets: torch.Tensor, num_classes: int) -> int:
    """Images that the released Si-Blurry stream never shows; 0 elsewhere."""
    if options.scenario != "si-blurry":
        return 0
    if options.n > 100:  # classes in natural order that cannot be shared out evenly, unless they are blurry too
        owned = {label for part in (*stream.disjoint, *stream.blurry) for label in part}
        return sum(label not in owned for label in targets.tolist())
    if options.varying:
        return 0
    # m percent of each task's blurry images are pooled and dealt out equally.
    blurry = [sum(label in part for label in targets.tolist()) for part in stream.blurry]
    return sum(count * options.m // 100 for count in blurry) % options.n_tasks


@pytest.mark.parametrize("scenario", typing.get_args(typing.get_args(typing.get_type_hints(RunArgs)["scenario"])[0]))
def test_any_settings_give_a_lawful_stream_or_one_line(scenario):
    made = []

    @examples(80)
    @given(stream_settings(scenario))
    def check(case):
        options, targets, num_classes, own = case
        try:
            stream = make_stream(options, own, targets, num_classes)
        except UsageError as error:
            assert len(str(error).splitlines()) == 1
            return
        made.append(stream)
        again = make_stream(options, own, targets, num_classes)
        seen = SeenClasses(num_classes, stream.known_classes, stream.num_domains)
        total = 0
        for epoch in range(stream.num_epochs):
            whole = []
            for task in range(stream.num_tasks):
                draws, others = stream.batches(task, epoch), again.batches(task, epoch)
                assert len(draws) == len(others)
                for draw, other in zip(draws, others, strict=True):
                    assert torch.equal(draw.indices, other.indices) and draw.augment == other.augment
                    most = stream.num_images() // own["steps"] if scenario == "trajectories" else options.batch_size
                    assert 1 <= len(draw.indices) <= most
                    assert draw.indices.min() >= 0 and draw.indices.max() < len(targets)
                    seen.add(targets[draw.indices])
                    whole += draw.indices.tolist()
                total += len(draws)
            if epoch == 0 or scenario != "adaptation":  # whose forgetting classes are drawn anew, and differ in size
                assert len(whole) == stream.num_images()
            if scenario in ("si-blurry", "class-il", "task-il", "domain-il"):  # every image exactly once in a pass
                assert len(set(whole)) == len(whole)
                assert len(targets) - len(whole) == left_out(options, stream, targets, num_classes)
        assert total == stream.num_batches()
        if scenario == "class-il" or (scenario == "si-blurry" and options.varying and options.n <= 100):
            assert sorted(seen.labels) == sorted(set(targets.tolist()))

    check()
    assert len(made) >= 10  # which ones are drawn depends on the version of hypothesis
