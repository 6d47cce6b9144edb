"""`main.py choose`: the rules, ties, and every set of runs from which nothing follows."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import main
from tests.utils.report.test_comparison import digest_of, kill, make_run, seal


def make_runs(folder: Path, scores: dict, option: str = "lr", measure: str = "A_last", **more) -> None:
    """A run for each value and seed 1, 2 ... ; None: no run."""
    for value, numbers in scores.items():
        for seed, number in enumerate(numbers, start=1):
            if number is not None:
                method = {"lr": 0.1, option: value}
                make_run(folder, "er", seed, f"{option}-{value}", {measure: number}, method=method, **more)


def chosen(capsys, folder: Path, rule: str, option: str = "lr", by: str = "A_last") -> tuple[int, str, str]:
    code = main.main(["choose", str(folder), "--option", option, "--by", by, "--rule", rule])
    return code, *capsys.readouterr()


def test_the_mode_and_the_mean(tmp_path, capsys):
    make_runs(tmp_path, {0.03: [0.5, 0.6, 0.1], 0.001: [0.4, 0.5, 0.9], 1e-05: [0.1, 0.1, 0.1]})
    code, out, error = chosen(capsys, tmp_path, "mode")
    assert (code, out) == (0, "0.03\n")
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in error.splitlines()]
    assert lines[0] == ["A_last (%) of lr", "seed 1", "seed 2", "seed 3", "mean", "votes"]
    assert lines[2:] == [
        ["0.03", "50.00", "60.00", "10.00", "40.00", "2"],
        ["0.001", "40.00", "50.00", "90.00", "60.00", "1"],
        ["1e-05", "10.00", "10.00", "10.00", "10.00", "0"],
    ]
    assert chosen(capsys, tmp_path, "mean")[:2] == (0, "0.001\n")


def test_ties(tmp_path, capsys):
    """A seed votes for the larger of two equal values; of equally many votes, or equal means, the smaller is taken."""
    make_runs(tmp_path / "seed", {10.0: [0.5], 9.0: [0.5], 0.1: [0.2]})
    assert chosen(capsys, tmp_path / "seed", "mode")[1] == "10.0\n"
    assert chosen(capsys, tmp_path / "seed", "mean")[1] == "9.0\n"
    make_runs(tmp_path / "votes", {10.0: [0.5, 0.1], 9.0: [0.1, 0.6], 0.1: [0.0, 0.0]})
    assert chosen(capsys, tmp_path / "votes", "mode")[1] == "9.0\n"


def test_less_may_be_better_and_values_may_be_words(tmp_path, capsys):
    make_runs(tmp_path, {"sgd": [0.3, 0.4], "adam": [0.2, 0.1]}, "optimizer", "F_last")
    assert chosen(capsys, tmp_path, "mode", "optimizer", "F_last")[:2] == (0, "adam\n")
    assert chosen(capsys, tmp_path, "mean", "optimizer", "F_last")[:2] == (0, "adam\n")


def test_the_newest_of_repeated_runs_counts(tmp_path, capsys):
    make_runs(tmp_path, {0.1: [0.5], 0.2: [0.4]})
    make_run(tmp_path, "er", 1, "a-older", {"A_last": 0.1}, method={"lr": 0.1})
    assert chosen(capsys, tmp_path, "mean")[1] == "0.1\n"
    make_run(tmp_path, "er", 1, "z-newer", {"A_last": 0.1}, method={"lr": 0.1})
    assert chosen(capsys, tmp_path, "mean")[1] == "0.2\n"


def test_datasets_count_like_seeds(tmp_path, capsys):
    for dataset, scores in (("glyphs", (0.5, 0.2)), ("icons", (0.1, 0.6))):
        for value, score in zip((0.1, 0.2), scores, strict=True):
            name, method = f"{dataset}-{value}", {"lr": value}
            run = make_run(tmp_path, "er", 1, name, {"A_last": score}, dataset=dataset, method=method)
            hold(run, dataset, "plain" if dataset == "icons" else None)
    code, out, error = chosen(capsys, tmp_path, "mean")
    assert (code, out) == (0, "0.2\n"), error
    assert "| glyphs seed 1 | icons seed 1 |" in error
    kill(tmp_path / "icons/er/icons-0.2-seed1", "")
    assert "lr 0.2 lacks icons seed 1; every value needs" in chosen(capsys, tmp_path, "mean")[2]
    hold(tmp_path / "icons/er/icons-0.1-seed1", "other icons", "plain")
    assert "the runs differ in more than lr and seeds: data.train (" in chosen(capsys, tmp_path, "mean")[2]


def hold(folder: Path, content: str, pictures: str | None) -> None:
    """Says what a run read, and an option that only one of the datasets has."""
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config |= {"identity": {"incidental": [], "read": {"data.train": digest_of(content)}}}
    config |= {} if pictures is None else {"data": {"pictures": pictures}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    seal(folder)


def change(folder: Path) -> None:
    """Another batch size in one run."""
    file = next(folder.rglob("config.yaml"))
    config = yaml.safe_load(file.read_text())
    config["run"]["batch_size"] = 1
    file.write_text(yaml.safe_dump(config))


@pytest.mark.parametrize(
    ("spoil", "words", "reason"),
    [
        (change, {}, "the runs differ in more than lr and seeds: batch_size (1 | 64); name folders of one kind"),
        (lambda folder: kill(folder / "glyphs/er/lr-0.2-seed2", ""), {}, "lr 0.2 lacks seed 2; every value needs"),
        (lambda folder: make_runs(folder, {0.3: [0.1]}), {}, "lr 0.3 lacks seed 2; every value needs"),
        (
            None,
            {"option": "lrr"},
            "--option lrr: no option of this name decides what these runs compute; did",
        ),
        (None, {"by": "A_train"}, "--by A_train: {folder}/glyphs/er/lr-0.1-seed1 has none; it takes --eval_train"),
        (None, {"by": "accuracy"}, "--by accuracy: no such measure; choose from A_auc"),
    ],
)
def test_runs_from_which_nothing_follows(spoil, words, reason, tmp_path, capsys):
    make_runs(tmp_path, {0.1: [0.5, 0.4], 0.2: [0.4, 0.3]})
    if spoil is not None:
        spoil(tmp_path)
    code, out, error = chosen(capsys, tmp_path, "mode", **words)
    assert (code, out) == (2, "") and error.count("\n") == 1
    assert error.startswith(f"error: {reason.format(folder=tmp_path)}")
