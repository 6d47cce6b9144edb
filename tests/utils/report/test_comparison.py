"""Tables and pictures made from run folders that were written by hand."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
import yaml

import main
from command import doctor
from tests.tiny import ROOT
from utils.errors import UsageError
from utils.report import comparison, differences, forgetting, markup, tables
from utils.runs import plots, reading, resume
from utils.runs import summary as summary_file
from utils.training import metrics
from utils.training.evaluation import Scores
from utils.training.history import History

METRICS_HEADER = "kind,samples_seen,nominal,task,accuracy,loss,classes_exposed,seconds"
STREAM = {"n_tasks": 5, "n": 50, "m": 10, "batch_size": 64}


def make_run(
    results: Path,
    label: str = "misa",
    seed: int = 1,
    time: str = "20250101-000000",
    scores: dict | None = None,
    dataset: str = "glyphs",
    scenario: str = "si-blurry",
    run: dict | None = None,
    method: dict | None = None,
    host: dict | None = None,
    classes: list[list[float | None]] | None = None,
    **summary,
) -> Path:
    """A finished run whose tables give its scores: metric -> fraction, the others follow or are undefined.

    classes: accuracies per task end and slot, instead of those that the scores ask for.
    """
    model = label.split()[0]
    folder = results / dataset / model / f"{time}-seed{seed}"
    folder.mkdir(parents=True)
    options = {"model": model, "dataset": dataset, "scenario": scenario, "seed": seed, "device": "cpu", **STREAM}
    config = {"run": options | (run or {}), "method": method or {"lr": 0.005}}
    if host is not None:
        config["host"] = host
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    write_tables(folder, {"A_auc": 0.5} if scores is None else scores)
    if classes is not None:
        write_classes(folder, classes)
    measured = summary_file.recomputed(
        reading.read_metrics(folder), reading.read_class_accuracies(folder), reading.read_tasks(folder)
    )
    values = {
        "label": label,
        **{name: value if summary_file.defined(value) else None for name, value in measured.items()},
        **(scores or {}),
        "complete": True,
        "samples": 3000,
        "seconds": 10.0,
        "trainable_parameters": 12345,
        "needs_task_boundaries": False,
        "stream_sha256": digest_of(f"stream {seed}"),
        "peak_memory_mb": 1000.0,
    }
    (folder / "summary.json").write_text(json.dumps(values | summary))
    return folder


def seal(folder: Path) -> None:
    """Writes into a run's summary the digest of its fields, as a run that says what it read does."""
    file = folder / "summary.json"
    summary = json.loads(file.read_text())
    file.write_text(json.dumps(summary | {summary_file.OWN_DIGEST: summary_file.fields_sha256(summary)}))


def digest_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def write_tables(folder: Path, scores: dict) -> None:
    """`metrics.csv` and `per_class.csv` that give these scores, of two tasks."""
    auc, last, average = (scores.get(name) for name in ("A_auc", "A_last", "A_avg"))
    lines = [METRICS_HEADER]
    for nominal in (1000, 2000, 3000):
        lines.append(f"anytime,{min(nominal + 24, 3000)},{nominal},,{'' if auc is None else auc},1.2,4,3.5")
    if last is not None:
        first = last if average is None else 2 * average - last
        lines.append(f"task_end,1500,,0,{first},,4,10.0")
    lines.append(f"task_end,3000,,1,{'' if last is None else last},,4,10.0")
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    lost = scores.get("F_last")
    write_classes(folder, [] if lost is None else [[0.5], [0.5 - lost]])


def write_classes(folder: Path, table: list[list[float | None]]) -> None:
    """`per_class.csv` from accuracies per task end and slot; None for a class not met yet."""
    lines = ["samples_seen,task,label,slot,accuracy"]
    for task, row in enumerate(table):
        lines += [f"{task},{task},{slot + 7},{slot},{value}" for slot, value in enumerate(row) if value is not None]
    (folder / "per_class.csv").write_text("\n".join(lines) + "\n")


def kill(folder: Path, metrics: str) -> None:
    """Leaves of a run what a killed one leaves."""
    (folder / "summary.json").unlink()
    (folder / "metrics.csv").write_text(metrics)


def table_rows(text: str) -> dict[str, list[str]]:
    """Method -> its other cells."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return {cells[0]: cells[1:] for cells in lines if cells[0] != "method" and set(cells[0]) != {"-"}}


def difference_rows(text: str) -> dict[str, list[str]]:
    """Method -> its other cells in the table of differences."""
    return table_rows(text[text.index("### Difference") :])


def make_table(*arguments: Path | str, capsys) -> tuple[str, str]:
    """(stdout, stderr) of a report that must succeed."""
    code = main.main(["report", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert code == 0, err
    return out, err


def error_of(*arguments: str, capsys) -> str:
    """The one line of a report that must fail."""
    code = main.main(["report", *arguments])
    out, err = capsys.readouterr()
    assert code == 2
    assert err.startswith("error: ") and err.count("\n") == 1
    return err


def assert_picture(path: Path) -> np.ndarray:
    """RGB [height, width, 3] of a PNG that is neither empty nor blank."""
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    pixels = matplotlib.image.imread(path)[:, :, :3]
    assert pixels.shape[0] >= 400 and pixels.shape[1] >= 600
    assert pixels.std() > 0.01
    return pixels


# Tables


def test_mean_and_sample_deviation(tmp_path, capsys):
    for seed, auc, last in ((1, 0.50, 0.30), (2, 0.52, 0.30), (3, 0.57, 0.30)):
        make_run(tmp_path, seed=seed, scores={"A_auc": auc, "A_avg": 0.4, "A_last": last, "F_last": -0.01})
    out, _ = make_table(tmp_path, capsys=capsys)
    # mean 53; deviations -3, -1, 4; variance (9 + 1 + 16) / 2 = 13
    assert table_rows(out) == {
        "misa": ["3", "53.00 ± 3.61", "40.00 ± 0.00", "30.00 ± 0.00", "-1.00 ± 0.00", "1.00 ± 0.00", "no", "12,345",
                 "300", "10.0 ± 0.0", "1,000 ± 0"]
    }  # fmt: skip


def test_one_seed_has_no_deviation_and_nan_is_a_dash(tmp_path, capsys):
    make_run(tmp_path, scores={"A_auc": 0.5, "BWT": float("nan")}, needs_task_boundaries=True)
    cells = table_rows(make_table(tmp_path, capsys=capsys)[0])["misa"]
    assert cells[:3] == ["1", "50.00", "yes"]  # measures that no run has are no columns


def test_value_undefined_for_some_seeds_is_told():
    assert tables.percent([0.1, None, 0.3]) == "20.00 ± 14.14 (of 2)"


def test_seconds_and_memory(tmp_path, capsys):
    for seed, seconds, memory in ((1, 10.0, 1000.4), (2, 12.0, None), (3, 17.0, 1400.4)):
        make_run(tmp_path, seed=seed, seconds=seconds, peak_memory_mb=memory)
    out, _ = make_table(tmp_path, capsys=capsys)
    assert table_rows(out)["misa"][-3:] == ["231", "13.0 ± 3.6", "1,200 ± 283 (of 2)"]


def test_summary_that_knows_no_memory(tmp_path, capsys):
    path = make_run(tmp_path) / "summary.json"
    summary = json.loads(path.read_text())
    del summary["peak_memory_mb"]
    path.write_text(json.dumps(summary))
    assert table_rows(make_table(tmp_path, capsys=capsys)[0])["misa"][-1] == "–"


def test_mepo_stands_beside_its_host(tmp_path, capsys):
    for label in ("slda", "mepo (misa)", "misa", "mepo (dualprompt)"):
        make_run(tmp_path, label, time=label.replace(" ", "-"))
    assert list(table_rows(make_table(tmp_path, capsys=capsys)[0])) == [
        "mepo (dualprompt)", "misa", "mepo (misa)", "slda"
    ]  # fmt: skip


@pytest.mark.parametrize("part, name", [("run", "n_tasks"), ("method", "align_form"), ("host", "lr")])
def test_different_settings_are_different_rows(tmp_path, capsys, part, name):
    make_run(tmp_path, "mepo (misa)", seed=1, **{part: {name: 1}})
    make_run(tmp_path, "mepo (misa)", seed=2, **{part: {name: 1}})
    make_run(tmp_path, "mepo (misa)", seed=3, **{part: {name: "exact"}})
    rows = table_rows(make_table(tmp_path, capsys=capsys)[0])
    shown = "host.lr" if part == "host" else name
    assert {label: cells[0] for label, cells in rows.items()} == {
        f"mepo (misa) {shown}=1": "2",
        f"mepo (misa) {shown}=exact": "1",
    }


def test_option_that_one_run_does_not_know(tmp_path, capsys):
    make_run(tmp_path, seed=1, method={"lr": 0.1})
    make_run(tmp_path, seed=2, method={"lr": 0.1, "new": None})
    assert list(table_rows(make_table(tmp_path, capsys=capsys)[0])) == ["misa new=None", "misa new=unset"]


def test_seeds_and_places_do_not_split_a_row(tmp_path, capsys):
    make_run(tmp_path, seed=1, run={"train_seed": 1, "device": "cuda", "data_dir": "a", "results": "a"})
    make_run(tmp_path, seed=2, run={"train_seed": 2, "device": "cpu", "data_dir": "b", "plugins": "b"})
    assert table_rows(make_table(tmp_path, capsys=capsys)[0])["misa"][0] == "2"


def test_repeated_seed_counts_once(tmp_path, capsys):
    make_run(tmp_path, time="20250102-000000", scores={"A_auc": 0.7})
    make_run(tmp_path, time="20250101-000000", scores={"A_auc": 0.1})
    out, _ = make_table(tmp_path, capsys=capsys)
    assert table_rows(out)["misa"][:2] == ["1", "70.00"]
    assert "misa, seed 1: 2 runs, only 20250102-000000-seed1 counts." in out


def test_same_seed_with_other_train_seed_is_no_repetition(tmp_path, capsys):
    make_run(tmp_path, time="a", run={"train_seed": 1})
    make_run(tmp_path, time="b", run={"train_seed": 2})
    assert table_rows(make_table(tmp_path, capsys=capsys)[0])["misa"][0] == "2"


def test_unequal_streams_are_told(tmp_path, capsys):
    make_run(tmp_path, "misa")
    make_run(tmp_path, "slda", stream_sha256=digest_of("another"))
    assert "did not all see the same stream for seed 1." in make_table(tmp_path, capsys=capsys)[0]


def test_equal_streams_need_no_word(tmp_path, capsys):
    for label in ("misa", "slda"):
        for seed in (1, 2):
            make_run(tmp_path, label, seed)
    assert "same stream" not in make_table(tmp_path, capsys=capsys)[0]


def test_one_table_per_dataset_and_scenario(tmp_path, capsys):
    make_run(tmp_path, time="a")
    make_run(tmp_path, time="b", scenario="class-il")
    make_run(tmp_path, dataset="cifar100")
    out, _ = make_table(tmp_path, capsys=capsys)
    headings = [line for line in out.splitlines() if line.startswith("##")]
    assert headings == ["## cifar100, si-blurry", "## glyphs, class-il", "## glyphs, si-blurry"]
    assert {path.name for path in tmp_path.glob("*.png")} == {
        "comparison-cifar100.png",
        "comparison-glyphs-class-il.png",
        "comparison-glyphs-si-blurry.png",
    }


def test_stages_are_left_out_but_a_measured_one_stays(tmp_path, capsys):
    make_run(tmp_path, "misa")
    make_run(tmp_path, "mepo_meta", scores={})
    make_run(tmp_path, "supervised", scores={"A_last": 0.8})
    out, _ = make_table(tmp_path, capsys=capsys)
    assert list(table_rows(out)) == ["misa", "supervised"]
    assert "stages without an accuracy (number of runs): mepo_meta (1)." in out


def test_only_stages(tmp_path, capsys):
    make_run(tmp_path, "mepo_cov", scores={})
    out, _ = make_table(tmp_path, capsys=capsys)
    assert not table_rows(out) and "mepo_cov (1)" in out


def test_pipe_in_a_name_does_not_break_the_table():
    lines = markup.markdown_table([["method", "x"], ["a|b", "1"]]).splitlines()
    assert lines[2] == "| a\\|b   | 1 |"


# Differences


def test_difference_of_every_row_to_a_named_one(tmp_path, capsys):
    for seed, auc in ((1, 0.50), (2, 0.40), (3, 0.60)):
        make_run(tmp_path, "misa", seed, scores={"A_auc": auc, "A_last": 0.3, "F_last": 0.10})
        make_run(tmp_path, "slda", seed, scores={"A_auc": auc + 0.05, "A_last": 0.299999, "F_last": 0.08 - 0.01 * seed})
    out, _ = make_table(tmp_path, "--baseline", "misa", capsys=capsys)
    # F_last: -3, -4, -5 points; the mean of a resample lies in between
    same = ["+0.00 [+0.00, +0.00]", "0.2500"]  # A_avg and A_last
    rows = difference_rows(out)
    assert list(rows) == ["slda"] and rows["slda"][:4] == ["misa", "3", "+5.00 [+5.00, +5.00]", "0.2500"]
    assert rows["slda"][4:10] == [*same, *same, "-4.00 [-5.00, -3.00]", "0.2500"]
    assert "F_last (points, less is better)" in out
    assert "## glyphs, si-blurry" in out and "### Difference to misa" in out and "too narrow" in out
    assert out.startswith((tmp_path / "table.md").read_text(encoding="utf-8"))


def test_without_baseline_there_is_no_word_on_differences(tmp_path, capsys):
    make_run(tmp_path)
    assert "ifference" not in make_table(tmp_path, capsys=capsys)[0]


def test_difference_counts_only_common_seeds(tmp_path, capsys):
    for seed in (1, 2, 3, 4):
        make_run(tmp_path, "misa", seed, scores={"A_auc": 0.5, "A_last": None if seed == 2 else 0.4})
    for seed in (2, 3, 9):
        make_run(tmp_path, "slda", seed, scores={"A_auc": 0.5 + seed / 100, "A_last": 0.5})
    make_run(tmp_path, "er", 8)
    rows = difference_rows(make_table(tmp_path, "--baseline", "misa", capsys=capsys)[0])
    assert rows["slda"] == ["misa", "2", "+2.50 –", "0.5000", *["+10.00 – (of 1)", "1.0000"] * 2]
    assert rows["er"] == ["misa", "0", *["–"] * 6]


@pytest.mark.parametrize("other", [{"stream_sha256": digest_of("another")}, {"run": {"train_seed": 5}}])
def test_difference_needs_the_same_stream_and_seeds(tmp_path, capsys, other):
    make_run(tmp_path, "misa")
    make_run(tmp_path, "slda", **other)
    assert difference_rows(make_table(tmp_path, "--baseline", "misa", capsys=capsys)[0])["slda"][1] == "0"


def test_baseline_is_named_as_in_the_table(tmp_path, capsys):
    for time, lr in (("a", 0.1), ("b", 0.2)):
        make_run(tmp_path, time=time, scores={"A_auc": lr}, method={"lr": lr})
    out, _ = make_table(tmp_path, "--baseline", "misa lr=0.1", capsys=capsys)
    assert difference_rows(out)["misa lr=0.2"][:3] == ["misa lr=0.1", "1", "+10.00 –"]


def test_unknown_baseline_is_answered_with_the_nearest_name(tmp_path, capsys):
    make_run(tmp_path, "misa")
    make_run(tmp_path, "dualprompt")
    error = error_of(str(tmp_path), "--baseline", "dualpromt", capsys=capsys)
    assert "--baseline dualpromt: no such row; did you mean 'dualprompt'?" in error
    assert "rows: dualprompt, misa" in error_of(str(tmp_path), "--baseline", "xyz", capsys=capsys)
    assert not (tmp_path / "table.md").exists()


def test_baseline_that_only_one_dataset_has(tmp_path, capsys):
    for label in ("misa", "er"):
        make_run(tmp_path, label)
    make_run(tmp_path, "er", dataset="cifar100")
    out, _ = make_table(tmp_path, "--baseline", "misa", capsys=capsys)
    assert "No row misa here to compare with." in out[: out.index("## glyphs")]
    assert list(table_rows(out[out.rindex("### Difference") :])) == ["er"]


def test_host_as_baseline(tmp_path, capsys):
    for label, auc in (("misa", 0.5), ("mepo (misa)", 0.6), ("er", 0.3), ("mepo (er)", 0.35), ("mepo (slda)", 0.4)):
        host = {"lr": 0.005} if label.startswith("mepo") else None
        make_run(tmp_path, label, time=label, scores={"A_auc": auc}, host=host)
    out, _ = make_table(tmp_path, "--baseline", "host", capsys=capsys)
    rows = {name: cells[:3] for name, cells in difference_rows(out).items()}
    assert rows == {"mepo (misa)": ["misa", "1", "+10.00 –"], "mepo (er)": ["er", "1", "+5.00 –"]}
    assert "mepo (slda): there is no row slda to compare with." in out and "### Difference to the host" in out
    assert "also differ" not in out


def test_of_several_host_rows_the_one_with_the_same_settings_counts(tmp_path, capsys):
    for time, lr in (("a", 0.1), ("b", 0.2)):
        make_run(tmp_path, "misa", time=time, scores={"A_auc": lr}, method={"lr": lr})
        make_run(tmp_path, "mepo (misa)", time=time, scores={"A_auc": 3 * lr}, method={"cor": 1}, host={"lr": lr})
    rows = difference_rows(make_table(tmp_path, "--baseline", "host", capsys=capsys)[0])
    assert {name: cells[:3] for name, cells in rows.items()} == {
        "mepo (misa) host.lr=0.1": ["misa lr=0.1", "1", "+20.00 –"],
        "mepo (misa) host.lr=0.2": ["misa lr=0.2", "1", "+40.00 –"],
    }


def test_of_files_that_were_read_those_that_were_asked_for_name_a_row(tmp_path, capsys):
    """A stage that a run made itself is the usual one, whatever its digest."""
    for time, read, asked in (
        ("a", {"method.meta_path": "1" * 64, "method.cor_path": "2" * 64}, {}),
        ("b", {"method.meta_path": "none", "method.cor_path": "3" * 64}, {"meta_path": "command line"}),
        ("c", {"method.meta_path": "4" * 64, "method.cor_path": "2" * 64}, {"meta_path": "command line"}),
    ):
        folder = make_run(tmp_path, "mepo (misa)", time=time, scores={"A_auc": 0.5}, host={"lr": 0.005})
        config = yaml.safe_load((folder / "config.yaml").read_text())
        config |= {"origin": asked, "identity": {"incidental": [], "read": read}}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        seal(folder)
    out, _ = make_table(tmp_path, capsys=capsys)
    names = [line.split("|")[1].strip() for line in out.splitlines() if line.startswith("| mepo")]
    assert names == ["mepo (misa)", "mepo (misa) meta_path=44444444", "mepo (misa) meta_path=none"]


def test_files_are_named_by_their_paths_where_these_differ(tmp_path, capsys):
    def named(*runs: tuple[str, str]) -> list[str]:
        results = tmp_path / str(len([*tmp_path.iterdir()]))
        for time, (path, digest) in enumerate(runs):
            folder = make_run(results, "oml", time=str(time), scores={"A_auc": 0.5}, method={"rln": path})
            config = yaml.safe_load((folder / "config.yaml").read_text())
            config |= {"origin": {"rln": "command line"}}
            config["identity"] = {"incidental": ["method.rln"], "read": {"method.rln": digest * 64}}
            (folder / "config.yaml").write_text(yaml.safe_dump(config))
            seal(folder)
        out, _ = make_table(results, capsys=capsys)
        return [line.split("|")[1].strip() for line in out.splitlines() if line.startswith("| oml")]

    assert named(("a/rln", "1"), ("b/rln", "2")) == ["oml rln=a/rln", "oml rln=b/rln"]
    assert named(("a/rln", "1"), ("a/rln", "2")) == ["oml rln=11111111", "oml rln=22222222"]


def test_host_row_of_equal_settings_and_host_row_as_it_stands(tmp_path, capsys):
    """MePo at its own rate, beside its host at that rate and beside its host at the host's own rate."""
    for label, rate, asked, auc in (
        ("misa", 0.001, None, 0.5),
        ("misa", 0.005, "command line", 0.4),
        ("misa", 0.02, "command line", 0.3),
        ("mepo (misa)", 0.005, None, 0.6),
        ("mepo (misa)", 0.02, "command line", 0.45),
    ):
        part = "host" if label.startswith("mepo") else "method"
        settings = {part: {"lr": rate}} | ({"method": {"cor": 1}} if part == "host" else {})
        folder = make_run(tmp_path, label, time=f"{label}{rate}", scores={"A_auc": auc}, **settings)
        config = yaml.safe_load((folder / "config.yaml").read_text())
        (folder / "config.yaml").write_text(yaml.safe_dump(config | {"origin": {"lr": asked} if asked else {}}))
    out, _ = make_table(tmp_path, "--baseline", "host", capsys=capsys)
    lines = [line.split("|")[1:5] for line in out[out.index("### Difference") :].splitlines() if "| mepo" in line]
    assert [[cell.strip() for cell in line] for line in lines] == [
        ["mepo (misa)", "misa lr=0.005", "1", "+20.00 –"],
        ["mepo (misa)", "misa", "1", "+10.00 –"],
        ["mepo (misa) host.lr=0.02", "misa lr=0.02", "1", "+15.00 –"],
    ]
    assert "mepo (misa) and misa also differ in lr." in out


def test_few_differences_are_told_in_words(tmp_path, capsys):
    for seed, auc in ((1, 0.6), (2, 0.61), (3, 0.63)):
        make_run(tmp_path, "misa", seed, scores={"A_auc": 0.6})
        make_run(tmp_path, "mepo (misa)", seed, scores={"A_auc": auc}, host={"lr": 0.005})
    out, _ = make_table(tmp_path, "--baseline", "host", capsys=capsys)
    assert out.rstrip().splitlines()[-2:] == [
        "On glyphs, si-blurry, the mean accuracy at any time (A_auc) of mepo (misa) is 1.3 points higher than that of "
        "misa, over 3 seeds; 95 % bootstrap interval +0.00 to +3.00, too narrow over fewer than 10 seeds.",
        f"The whole table: {tmp_path / 'table.md'}",
    ]
    for time in "abc":
        make_run(tmp_path, "mepo (misa)", time=time, method={"cor": ord(time)}, host={"lr": 0.005})
    assert "bootstrap interval +" not in make_table(tmp_path, "--baseline", "host", capsys=capsys)[0]


def test_host_row_that_is_not_quite_the_host_is_told(tmp_path, capsys):
    make_run(tmp_path, "misa", run={"batch_size": 32})
    make_run(tmp_path, "mepo (misa)", host={"lr": 0.1})
    out, _ = make_table(tmp_path, "--baseline", "host", capsys=capsys)
    assert "mepo (misa) and misa also differ in batch_size, lr." in out


def test_host_that_cannot_be_told_from_another(tmp_path, capsys):
    for time, lr in (("a", 0.1), ("b", 0.2)):
        make_run(tmp_path, "misa", time=time, method={"lr": lr})
    make_run(tmp_path, "mepo (misa)", host={"lr": 0.3})
    out, _ = make_table(tmp_path, "--baseline", "host", capsys=capsys)
    assert "mepo (misa): misa lr=0.1 and misa lr=0.2 are equally near; name one as baseline." in out


def test_no_row_has_a_host(tmp_path, capsys):
    make_run(tmp_path)
    assert "No row here has a host" in make_table(tmp_path, "--baseline", "host", capsys=capsys)[0]


def test_interval_of_the_mean():
    assert differences.bootstrap_interval([2.0, 2.0, 2.0]) == (2.0, 2.0)
    assert differences.bootstrap_interval([1.0, 2.0]) is None
    values = np.random.default_rng(1).normal(3, 2, 400).tolist()
    low, high = differences.bootstrap_interval(values)
    error = np.std(values) / np.sqrt(len(values))
    np.testing.assert_allclose([low, high], np.mean(values) + 1.96 * error * np.array([-1, 1]), atol=0.03)
    assert differences.bootstrap_interval(values) == (low, high)


@pytest.mark.parametrize(
    "values, p",
    [
        ([3, 4, 5], 2 / 8),  # only all plus and all minus
        ([1, -2, 3], 6 / 8),  # |sum| of the eight: 6 4 2 0 0 2 4 6, observed 2
        ([2, 2, 2, 2, -1], 4 / 32),  # +-9 and +-7, observed 7
        ([0.1, 0.2, 0.3, 0.4, 0.5], 2 / 32),
        ([0, 0, 0], 1),
        ([5], 1),
        ([1] * 15 + [-1], 34 / 2**16),  # at most one sign unlike the others
    ],
)
def test_sign_flip_test_by_hand(values, p):
    assert differences.sign_flip_p(values) == p == differences.sign_flip_p([-value for value in values])


def test_sign_flip_test_does_not_stumble_over_rounding():
    # in tenths every sum is odd, so none is nearer to 0 than the observed 1; in floats some sums of 1 are
    assert differences.sign_flip_p([0.1, 0.1, 0.2, -0.3]) == 1


def test_sign_flip_test_of_many_seeds_is_close_to_the_exact_one():
    values = np.random.default_rng(0).normal(0.3, 1, 17)
    signs = 1 - 2 * (np.arange(2**17)[:, None] >> np.arange(17) & 1)
    exact = np.mean(np.abs(signs @ values) >= abs(values.sum()) - 1e-9)
    assert abs(differences.sign_flip_p(values.tolist()) - exact) < 0.01


# LaTeX


def test_latex_text_is_escaped():
    text = r"100%_&#${x}~^\<|>"
    escaped = markup.latex_text(text)
    assert escaped == (
        r"100\%\_\&\#\$\{x\}\textasciitilde{}\textasciicircum{}\textbackslash{}"
        r"\textless{}\textbar{}\textgreater{}"
    )
    assert markup.latex_text('"') == r"\textquotedblright{}"  # the straight one is not in LaTeX's default encoding
    assert markup.latex_text("[a]*\nb") == "{[}a]{*} b"  # after a line end these would be arguments


@pytest.mark.parametrize(
    "cell, latex",
    [
        ("53.00 ± 3.61", r"$53.00 \pm 3.61$"),
        ("-1.00 ± 0.00", r"$-1.00 \pm 0.00$"),
        ("20.00 ± 14.14 (of 2)", r"$20.00 \pm 14.14$ (of 2)"),
        ("1,234,567", "$1{,}234{,}567$"),
        ("-0.5", "$-0.5$"),
        ("–", "--"),
        ("no", "no"),
        ("A_auc (%)", r"A\_auc (\%)"),
        ("3x", "3x"),
    ],
)
def test_latex_cell(cell, latex):
    assert markup.latex_cell(cell) == latex


def test_latex_file(tmp_path, capsys):
    for seed in (1, 2):
        for label, method in (("misa", {"path": "50%_of&#"}), ("misa", {"path": "b"}), ("er", {})):
            make_run(tmp_path, label, seed, time=str(method), method=method)
    make_run(tmp_path, "er", dataset="cifar100")
    make_table(tmp_path, capsys=capsys)
    text = (tmp_path / "table.tex").read_text(encoding="utf-8")
    assert text.isascii()
    tabulars = text.split(r"\begin{tabular}{")[1:]
    assert len(tabulars) == 2
    columns = len(["method", "seeds", "A_auc", *tables.AFTER])
    for tabular, num_rows in zip(tabulars, (1, 3), strict=True):
        spec, _, body = tabular.partition("}")
        assert spec == "l" + "r" * (columns - 1)
        lines = body[: body.index(r"\end{tabular}")].strip().splitlines()
        assert [lines[0], lines[2], lines[-1]] == [r"\toprule", r"\midrule", r"\bottomrule"]
        rows = [lines[1], *lines[3:-1]]
        assert len(rows) == 1 + num_rows
        for row in rows:
            assert row.endswith(r" \\")
            plain = re.sub(r"\\[%&#$_{}]", "", row.removesuffix(r" \\"))  # without what is escaped
            assert plain.count("&") == columns - 1
            assert not re.search("[%#_]", plain) and plain.count("$") % 2 == 0 and plain.count("{") == plain.count("}")
    assert r"misa path=50\%\_of\&\# & $2$ & $50.00 \pm 0.00$ & no &" in text


# Forgetting


TABLE = [[0.8, 0.4, None, None, None], [0.6, 0.5, 0.0, 0.9, None], [0.5, 0.7, 0.2, 0.6, 0.3]]


def classes_of(table: list[list[float | None]]) -> pd.DataFrame:
    rows = [(t, c, value) for t, row in enumerate(table) for c, value in enumerate(row) if value is not None]
    return pd.DataFrame(rows, columns=["task", "slot", "accuracy"])


def test_forgetting_by_hand():
    accuracies = classes_of(TABLE)
    # class 2 was never right before the last task, class 4 is new in it
    np.testing.assert_allclose(forgetting.per_class(accuracies), [0.3, -0.2, np.nan, 0.3, np.nan])
    np.testing.assert_allclose(forgetting.per_task(accuracies), [0.05, 0.3, np.nan])


def test_forgetting_of_one_task_is_undefined():
    assert np.isnan(forgetting.per_task(classes_of(TABLE[:1]))).all()


def test_forgetting_without_any_class(tmp_path):
    write_classes(tmp_path, [])
    accuracies = reading.read_class_accuracies(tmp_path)
    assert len(forgetting.per_class(accuracies)) == len(forgetting.per_task(accuracies)) == 0


def test_of_several_passes_over_a_task_the_last_counts():
    repeated = pd.concat([classes_of([[0.9, 0.9]]), classes_of(TABLE)])
    np.testing.assert_array_equal(forgetting.per_class(repeated), forgetting.per_class(classes_of(TABLE)))


def test_task_that_brings_no_class_is_undefined():
    np.testing.assert_allclose(
        forgetting.per_task(classes_of([[], [0.5], [0.4], [0.2, 0.9]])), [np.nan, 0.3, np.nan, np.nan]
    )


def test_mean_of_class_forgetting_is_f_last_of_the_run(tmp_path):
    """What a run writes is what the report reads."""
    history, random, table = History(), np.random.default_rng(0), []
    for task, met in enumerate((3, 3, 7, 9)):
        table.append(np.where(np.arange(9) < met, random.random(9).round(1), 0))
        accuracy = Scores(average=0.5, per_class=table[-1])
        history.add_task_end(100 * task, task, accuracy, list(range(met)), loss=1.0, classes_exposed=met, seconds=1.0)
    history.per_class().to_csv(tmp_path / "per_class.csv", index=False)
    accuracies = reading.read_class_accuracies(tmp_path)
    assert np.nanmean(forgetting.per_class(accuracies)) == pytest.approx(history.summary()["F_last"])
    assert forgetting.per_task(accuracies)[2] == metrics.forgetting(np.array(table)[:, 3:7])


def test_mean_over_seeds_passes_over_what_is_undefined():
    rows = [[np.array([1.0, np.nan]), np.array([3.0, 5.0, np.nan])], [np.array([np.nan])], []]
    np.testing.assert_array_equal(forgetting.mean_over_seeds(rows), [[2, 5, np.nan], [np.nan] * 3, [np.nan] * 3])


def test_heat_maps_of_forgetting(tmp_path, capsys, monkeypatch):
    drawn = {}
    monkeypatch.setattr(comparison, "draw_forgetting", lambda path, **what: drawn.update({path.name: what}))
    for seed in (1, 2):
        make_run(tmp_path, "misa", seed, classes=[[0.05 * seed + value for value in row if value] for row in TABLE])
        make_run(tmp_path, "er", seed, classes=[[0.5, 0.5], [0.5, 0.3 + 0.1 * seed, 0.1]])
    make_run(tmp_path, "one_task")
    make_table(tmp_path, capsys=capsys)
    assert set(drawn) == {"forgetting-glyphs.png", "forgetting-classes-glyphs.png"}
    tasks, classes = (drawn[name] for name in ("forgetting-glyphs.png", "forgetting-classes-glyphs.png"))
    assert tasks["names"] == classes["names"] == ["er", "misa"]
    assert tasks["points"].shape == (2, 3) and classes["points"].shape == (2, 5)
    np.testing.assert_allclose(classes["points"][0], [0, 5, np.nan, np.nan, np.nan], atol=1e-9)
    np.testing.assert_allclose(tasks["points"][0], [2.5, np.nan, np.nan], atol=1e-9)


def test_heat_map_files(tmp_path, capsys):
    make_run(tmp_path, classes=TABLE)
    out, _ = make_table(tmp_path, capsys=capsys)
    for name in ("forgetting-glyphs.png", "forgetting-classes-glyphs.png"):
        assert_picture(tmp_path / name)
        assert str(tmp_path / name) in out


@pytest.mark.parametrize("content", [None, "", "task,slot\n0,0\n", "task,slot,accuracy\n0,-1,0.5\n"])
def test_unreadable_class_accuracies_cost_only_the_heat_map(tmp_path, capsys, content):
    path = make_run(tmp_path) / "per_class.csv"
    path.unlink()
    if content is not None:
        path.write_text(content)
    out, err = make_table(tmp_path, capsys=capsys)
    assert "misa" in table_rows(out) and str(path) in err and err.count("\n") == 1
    assert not list(tmp_path.glob("forgetting*"))


@pytest.mark.parametrize("shape", [(1, 1), (2, 5), (8, 20), (30, 200)])
def test_forgetting_picture(tmp_path, shape):
    points = np.random.default_rng(0).normal(5, 10, shape)
    points[0, -1] = np.nan if shape[1] > 1 else 1
    names = [f"mepo (method {index}) with=some_rather_long_setting another={index}" for index in range(shape[0])]
    plots.draw_forgetting(tmp_path / "forgetting.png", points, names, "task", "a dataset")
    assert_picture(tmp_path / "forgetting.png")


def test_forgetting_is_red_gain_blue_and_neither_white(tmp_path):
    points = np.repeat([[5.0, 0.0, -10.0]], 20, axis=1)
    plots.draw_forgetting(tmp_path / "forgetting.png", points, ["a"], "class", "")
    image = assert_picture(tmp_path / "forgetting.png")
    red, white, blue = (image[image.shape[0] // 4, image.shape[1] * sixth // 6] for sixth in (1, 3, 5))
    assert red[0] > red[2] + 0.2 and blue[2] > blue[0] + 0.2
    assert white.min() > 0.95


# Runs that did not end, damaged files, bad arguments


@pytest.mark.parametrize(
    "metrics, progress",
    [
        (f"{METRICS_HEADER}\nanytime,1024,1000,,0.5,1,4,3\nanytime,2048,20", "evaluated at 1,024 images"),
        (f"{METRICS_HEADER}\nanytime,1024,1000,,0.5,1,4,3\nanytime,2048,2000,,0.5,1,4,3", "evaluated at 1,024 images"),
        (f"{METRICS_HEADER}\n", "no evaluation yet"),
        ("kind,sam", "no readable evaluation"),
        ("", "no readable evaluation"),
    ],
)
def test_killed_run_is_listed_not_averaged(tmp_path, capsys, metrics, progress):
    make_run(tmp_path, seed=1, scores={"A_auc": 0.5})
    kill(make_run(tmp_path, seed=2, scores={"A_auc": 0.9}), metrics)
    out, _ = make_table(tmp_path, capsys=capsys)
    assert table_rows(out)["misa"][:2] == ["1", "50.00"]
    assert f"Left out, not finished: misa/20250101-000000-seed2 ({progress})." in out


def test_killed_run_does_not_displace_an_older_whole_one(tmp_path, capsys):
    make_run(tmp_path, time="20250101-000000")
    kill(make_run(tmp_path, time="20250102-000000"), "")
    assert table_rows(make_table(tmp_path, capsys=capsys)[0])["misa"][0] == "1"


def test_truncated_last_line_is_passed_over(tmp_path):
    (tmp_path / "metrics.csv").write_bytes(f"{METRICS_HEADER}\r\nanytime,64,64,,0.5,1,4,3\r\nanytime,128\r".encode())
    metrics = reading.read_metrics(tmp_path)
    assert metrics["samples_seen"].tolist() == [64]
    assert metrics["accuracy"].tolist() == [0.5]


@pytest.mark.parametrize(
    "file, text, reason",
    [
        ("summary.json", '{"A_auc": 0.', "is damaged"),
        ("summary.json", "[]", "found list"),
        ("summary.json", '{"label": "misa"}', "lacks A_auc"),
        ("config.yaml", "run: [unclosed", "is damaged"),
        ("config.yaml", "", "found NoneType"),
        ("config.yaml", "run: {model: misa}", "lacks dataset"),
    ],
)
def test_damaged_run_is_named_and_the_others_stay(tmp_path, capsys, file, text, reason):
    make_run(tmp_path, seed=1)
    damaged = make_run(tmp_path, seed=2) / file
    damaged.write_text(text)
    out, err = make_table(tmp_path, capsys=capsys)
    assert table_rows(out)["misa"][0] == "1"
    assert err.startswith("warning: ") and str(damaged) in err and reason in err and err.count("\n") == 1
    assert err.strip() in (tmp_path / "table.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["A_auc", "seconds", "peak_memory_mb"])
def test_text_where_a_number_belongs(tmp_path, capsys, name):
    make_run(tmp_path, seed=1)
    make_run(tmp_path, seed=2, **{name: "high"})
    assert f"{name} is 'high', not a number" in make_table(tmp_path, capsys=capsys)[1]


def test_damaged_metrics_cost_only_the_curve(tmp_path, capsys):
    damaged = make_run(tmp_path) / "metrics.csv"
    damaged.write_text(f"{METRICS_HEADER}\nanytime,64,64,,half,1,4,3\n")
    out, err = make_table(tmp_path, capsys=capsys)
    assert "misa" in table_rows(out)
    assert str(damaged) in err and "curve" in err


def test_only_damaged_runs(tmp_path, capsys):
    (make_run(tmp_path) / "summary.json").write_text("")
    assert "summary.json is damaged" in error_of(str(tmp_path), capsys=capsys)


def test_command_line_shows_no_traceback(tmp_path):
    command = [sys.executable, str(ROOT / "main.py"), "report", str(tmp_path / "absent")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_import_loads_no_drawing_library():
    code = "import sys, utils.report.comparison; sys.exit('matplotlib' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_missing_folder(tmp_path, capsys):
    assert "absent: no such folder" in error_of(str(tmp_path / "absent"), capsys=capsys)


def test_folder_without_runs(tmp_path, capsys):
    assert f"no run below {tmp_path}" in error_of(str(tmp_path), capsys=capsys)


def test_unknown_option(tmp_path, capsys):
    assert "did you mean --out?" in error_of(str(tmp_path), "--ou=x", capsys=capsys)


def test_output_that_cannot_be_written(tmp_path, capsys):
    folder = make_run(tmp_path)
    (tmp_path / "file").write_text("")
    assert "--out DIR" in error_of(str(folder), "--out", str(tmp_path / "file"), capsys=capsys)


# Run folders of somebody else


ESCAPE, ENDLESS = "\x1b[2J", "x" * 2_000_000
# What -> (file, field, value that it cannot have). A field of several names lies in the options of a run.
UNFIT = {
    "dataset that goes up": ("config.yaml", "run.dataset", "x/../../../evil"),
    "dataset from the root": ("config.yaml", "run.dataset", "/evil"),
    "dataset of two dots": ("config.yaml", "run.dataset", ".."),
    "scenario with a line end": ("config.yaml", "run.scenario", "a\n\\input{evil}"),
    "model that is a list": ("config.yaml", "run.model", ["er"]),
    "no seed": ("config.yaml", "run.seed", None),
    "seeds as a list": ("config.yaml", "run.seed", [1, 2]),
    "seed of a text": ("config.yaml", "run.seed", "1"),
    "seed that is true": ("config.yaml", "run.seed", True),
    "seed of 90 digits": ("config.yaml", "run.seed", 10**90),
    "other seed as a dictionary": ("config.yaml", "run.train_seed", {"a": 1}),
    "option with an escape": ("config.yaml", "method.path", ESCAPE),
    "option with NUL": ("config.yaml", "method.path", "a\0b"),
    "option with half a character": ("config.yaml", "method.path", "\ud800"),
    "option of 5,000 characters": ("config.yaml", "method.path", "x" * 5000),
    "option of 2 MB": ("config.yaml", "method.path", ENDLESS),
    "option of lists": ("config.yaml", "method.lr", [[1]]),
    "date": ("config.yaml", "method.lr", datetime.date(2020, 1, 1)),
    "options as a list": ("config.yaml", "method", [1]),
    "a thousand options": ("config.yaml", "method", {f"a{k}": 1 for k in range(1000)}),
    "name of an option that is a number": ("config.yaml", "method", {1: 1}),
    "name of an option with a line end": ("config.yaml", "method", {"a\n": 1}),
    "digest that is a path": ("config.yaml", "stream_sha256", "../evil"),
    "origin as a list": ("config.yaml", "origin", [1]),
    "versions with numbers": ("config.yaml", "versions", {"torch": 2}),
    "commit as a number": ("config.yaml", "git_commit", 12),
    "threads as a text": ("config.yaml", "threads", "two"),
    "label with a line end": ("summary.json", "label", "er\n\\input{evil}"),
    "label with an escape": ("summary.json", "label", f"er {ESCAPE}"),
    "label with NUL": ("summary.json", "label", "er\0"),
    "label with half a character": ("summary.json", "label", "er \ud83d"),
    "label that turns the line round": ("summary.json", "label", "er \u202e"),
    "label of a formula": ("summary.json", "label", "=cmd()"),
    "label of 300 characters": ("summary.json", "label", "x" * 300),
    "label of 2 MB": ("summary.json", "label", ENDLESS),
    "label that is a list": ("summary.json", "label", ["er"]),
    "empty label": ("summary.json", "label", ""),
    "borders as a text": ("summary.json", "needs_task_boundaries", "no"),
    "complete as a text": ("summary.json", "complete", "yes"),
    "endless seconds": ("summary.json", "seconds", float("inf")),
    "seconds below zero": ("summary.json", "seconds", -1),
    "undefined seconds": ("summary.json", "seconds", float("nan")),
    "samples that are true": ("summary.json", "samples", True),
    "parameters as a list": ("summary.json", "trainable_parameters", [1]),
    "stream of a word": ("summary.json", "stream_sha256", "evil"),
    "digests as a list": ("summary.json", "sha256", [1]),
    "digest of a file elsewhere": ("summary.json", "sha256", {"../evil": "0" * 64}),
    "deep lists": ("summary.json", "extra", [[[[[[[[1]]]]]]]]),
    "numbers without end": ("summary.json", "extra", [1] * 20_000),
}


def set_field(file: Path, field: str, value) -> None:
    text = file.read_text(encoding="utf-8")
    content = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
    place = content
    *parents, last = field.split(".")
    for parent in parents:
        place = place[parent]
    place[last] = value
    file.write_text(json.dumps(content) if file.suffix == ".json" else yaml.safe_dump(content), encoding="utf-8")


def ended(results: Path, settings: dict) -> list[Path]:
    """What `--resume auto` finds of complete runs."""
    here = settings | {"identity": {"incidental": [], "read": {}}}
    return [folder for folder, _ in resume.candidates(str(results), here) if resume.has_ended(folder)]


def refusals_of_every_reader(results: Path, folder: Path, capsys) -> list[str]:
    """What report, doctor, `--resume FOLDER` and `--resume auto` say of a run folder beside which lies a sound one."""
    settings = {"run": {"model": "misa", "dataset": "glyphs", "scenario": "si-blurry", "seed": 2} | STREAM}
    settings["run"]["device"], settings["method"] = "cpu", {"lr": 0.005}
    before = {path for path in results.parent.rglob("*")}
    _, err = make_table(results, "--out", results / "out", capsys=capsys)
    assert {path.parent for path in results.parent.rglob("*") if path not in before} <= {results, results / "out"}
    assert (results / "out" / "table.tex").read_text(encoding="utf-8").count("\\input") == 0
    found = [text for level, text in doctor.runs(results) if level == doctor.FAULT]
    assert ended(results, settings) == []
    capsys.readouterr()
    with pytest.raises(UsageError) as refusal:
        resume.config_of(folder)
        reading.read_run(folder)
    return [*err.splitlines(), *found, str(refusal.value)]


@pytest.mark.parametrize("what", UNFIT)
def test_fields_that_cannot_be_are_named_by_every_reader(what, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(comparison, "draw_comparison", lambda path, **_: None)  # it takes longest
    file, field, value = UNFIT[what]
    results = tmp_path / "results"
    make_run(results, seed=1)
    folder = make_run(results, seed=2)
    set_field(folder / file, field, value)
    for said in refusals_of_every_reader(results, folder, capsys):
        assert str(folder / file) in said and said.isprintable() and len(said) < 700
        assert "more than 65,536 bytes" in said if value == ENDLESS else field.rpartition(".")[2] in said


@pytest.mark.parametrize("file", ["metrics.csv", "per_class.csv"])
@pytest.mark.parametrize("content", ["x" * 2**26, "a,b\n1,2\n", '"', "task,slot,accuracy\n0,1e99,0.5\n", "\0\n"])
def test_tables_that_cannot_be_cost_one_line(file, content, tmp_path, capsys):
    folder = make_run(tmp_path, seed=1)
    (folder / file).write_text(content)
    out, err = make_table(tmp_path, capsys=capsys)
    assert str(folder / file) in err and err.count("\n") == 1 and len(err) < 500
    faults = [text for level, text in doctor.runs(tmp_path) if level == doctor.FAULT]
    assert len(faults) == 1 and str(folder / file) in faults[0]


@pytest.mark.parametrize(
    "row", ["anytime,1,1,,2,1,1,1", "anytime,1,,,0.5,1,1,1", "task_end,1,,,1,1,1,1", "anytime,inf,1,,0,1,1,1"]
)
def test_numbers_of_metrics_are_bounded(row, tmp_path):
    (tmp_path / "metrics.csv").write_text(f"{METRICS_HEADER}\n{row}\n")
    with pytest.raises(UsageError, match="metrics.csv is damaged"):
        reading.read_metrics(tmp_path)


def test_class_names_with_commas_quotes_and_line_ends(tmp_path):
    names = ["a, b", 'the "c"', "d\ne", "f"]
    table = pd.DataFrame({"task": 0, "name": names, "slot": range(4), "accuracy": 0.5})
    table.to_csv(tmp_path / "per_class.csv", index=False)
    assert reading.read_class_accuracies(tmp_path)["slot"].tolist() == [0, 1, 2, 3]
    whole = (tmp_path / "per_class.csv").read_text()
    for end in (whole.index('e",2'), whole.index("d\n") + 1, whole.index("d\n") + 2):  # cut within the third row
        (tmp_path / "per_class.csv").write_text(whole[:end])
        assert reading.read_class_accuracies(tmp_path)["slot"].tolist() == [0, 1]


def test_links_in_place_of_a_run_and_its_files(tmp_path, capsys):
    """Links to folders are not followed, links to files are read; those that lead nowhere are named."""
    elsewhere = make_run(tmp_path / "elsewhere", seed=3)
    results = tmp_path / "results"
    make_run(results, seed=1)
    (results / "glyphs" / "misa" / "linked").symlink_to(elsewhere)
    (results / "loop").symlink_to(results)
    assert table_rows(make_table(results, capsys=capsys)[0])["misa"][0] == "1"
    for name in ("config.yaml", "summary.json"):
        folder = make_run(results, seed=2, time=name)
        (folder / name).unlink()
        (folder / name).symlink_to(name)
        _, err = make_table(results, capsys=capsys)
        assert str(folder / name) in err
        assert [text for level, text in doctor.runs(results) if level == doctor.FAULT and str(folder / name) in text]
    settings = yaml.safe_load((elsewhere / "config.yaml").read_text())
    assert ended(results, settings) == []
    assert ended(tmp_path / "elsewhere", settings) == [elsewhere]


def test_odd_labels_are_shown_as_they_are(tmp_path, capsys):
    """In Markdown, LaTeX, CSV and pictures."""
    labels = [
        "a $x$ b",
        "a $x_{ b",
        "m|n",
        "**bold**"[2:],
        "c <b>html</b> `code`",
        "d [link](http://x)",
        "e %& \\input",
        "\u4e2d",
    ]
    for label in labels:
        folder = make_run(tmp_path, time=f"{labels.index(label)}", classes=TABLE)
        set_field(folder / "summary.json", "label", label)
    out, err = make_table(tmp_path, capsys=capsys)
    assert err == "" and {path.name for path in tmp_path.glob("*.png")} == {
        "comparison-glyphs.png", "forgetting-glyphs.png", "forgetting-classes-glyphs.png"
    }  # fmt: skip
    assert set(pd.read_csv(tmp_path / "seeds.csv")["method"]) == set(labels)
    shown = (tmp_path / "table.md").read_text(encoding="utf-8")
    for text in (r"a \$x\$ b", r"m\|n", r"bold\*\*", r"\<b>html\</b> \`code\`", r"d [link\](http://x)"):
        assert text in shown
    assert r"e \%\& \textbackslash{}input &" in (tmp_path / "table.tex").read_text(encoding="utf-8")


def test_odd_folder_names_do_nothing_to_a_terminal(tmp_path, capsys, monkeypatch):
    (make_run(tmp_path, seed=1, time=f"a{ESCAPE}\n## b") / "summary.json").write_text("{")
    make_run(tmp_path, seed=2)
    kill(make_run(tmp_path, seed=3, time=f"c{ESCAPE}\n## d"), "")
    out, err = make_table(tmp_path, capsys=capsys)
    assert ESCAPE not in out + err and "\n## b" not in out + err and "\n## d" not in out
    assert err.count("\n") == 1 and r"a\x1b[2J\n## b" in err
    assert ESCAPE not in (tmp_path / "table.md").read_text()
    monkeypatch.setattr(doctor, "examinations", lambda _: [("runs", doctor.runs(tmp_path))])
    assert main.main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert ESCAPE not in out and r"c\x1b[2J\n## d" in out


def test_files_of_two_scenes_do_not_take_each_others_place():
    scenes = [("a", "b"), ("a", "c"), ("a-b", "x"), ("A-B", "y"), ("\u00e9", "z")]
    assert list(comparison.file_names(scenes).values()) == ["a-b", "a-c", "a-b-2", "A-B-3", "_"]


def test_rows_whose_names_look_alike_stay_apart(tmp_path, capsys):
    make_run(tmp_path, "misa", 1, time="a", method={"x": "1 y=2", "y": "3"})
    make_run(tmp_path, "misa", 1, time="b", method={"x": "1", "y": "2 y=3"})
    make_run(tmp_path, "misa", 1, time="c", method={"x": "z" * 4000, "y": "0"})
    make_run(tmp_path, "misa", 1, time="d", method={"x": "z" * 3999, "y": "0"})
    rows = table_rows(make_table(tmp_path, capsys=capsys)[0])
    assert len(rows) == 4 and max(map(len, rows)) < 200


# Summaries that say other than the tables

MEASURED = {"A_auc": 0.5, "A_avg": 0.4, "A_last": 0.3, "F_last": 0.1}


@pytest.mark.parametrize(
    "field, value, there",
    [
        ("A_auc", 0.6, "A_auc is 0.600000, by the run's tables it is 0.500000"),
        ("A_avg", None, "A_avg is undefined, by the run's tables it is 0.400000"),
        ("A_last", 0.31, "A_last is 0.310000"),
        ("F_last", 0.0, "F_last is 0.000000"),
        ("BWT", 0.1, "BWT is 0.100000"),
        ("samples", 2999, "samples is 2999, by metrics.csv it is 3000"),
        ("seconds", 9.0, "seconds is 9.0, by metrics.csv at least 10.0"),
        ("dataset", "other", "dataset is 'other', in config.yaml it is 'glyphs'"),
        ("seed", 7, "seed is 7, in config.yaml it is 2"),
    ],
)
def test_summary_that_says_other_than_the_tables(field, value, there, tmp_path, capsys):
    make_run(tmp_path, seed=1, scores=MEASURED)
    folder = make_run(tmp_path, seed=2, scores=MEASURED)
    set_field(folder / "summary.json", field, value)
    out, err = make_table(tmp_path, capsys=capsys)
    assert table_rows(out)["misa"][0] == "1"
    assert f"{folder / 'summary.json'} is not what the run left: {there}" in err and err.count("\n") == 1
    assert [text for level, text in doctor.runs(tmp_path) if level == doctor.FAULT and there in text]


@pytest.mark.parametrize("field, value", [("label", "er"), ("seconds", 99.0), ("trainable_parameters", 1), ("new", 1)])
def test_any_field_of_a_summary_that_was_changed_is_noticed(field, value, tmp_path, capsys):
    make_run(tmp_path, seed=1)
    summary = make_run(tmp_path, seed=2) / "summary.json"
    seal(summary.parent)
    assert make_table(tmp_path, capsys=capsys)[1] == ""
    set_field(summary, field, value)
    assert f"{summary} is damaged: its fields are not what the run wrote" in make_table(tmp_path, capsys=capsys)[1]


@pytest.mark.parametrize("evaluated", [True, False])
def test_summary_is_recomputed_as_the_run_makes_it(evaluated, tmp_path):
    """Several passes over a task, a task without a class, an undefined accuracy, a run that is not evaluated."""
    history, random, images = History(), np.random.default_rng(0), 0
    for task, met in enumerate((0, 3, 3, 7)):
        for _ in range(2):
            images += 100
            classes = np.where(np.arange(9) < met, random.random(9).astype(np.float32), 0)
            accuracy = Scores(classes[:met].mean() if met else float("nan"), classes) if evaluated else None
            common = {"loss": None, "classes_exposed": met, "seconds": images / 7}
            if task:
                history.add_anytime(images, images, accuracy, **common)
            history.add_task_end(images, task, accuracy, list(range(met)), **common)
    history.metrics().to_csv(tmp_path / "metrics.csv", index=False)
    history.per_class().to_csv(tmp_path / "per_class.csv", index=False)
    found = summary_file.recomputed(
        reading.read_metrics(tmp_path), reading.read_class_accuracies(tmp_path), reading.read_tasks(tmp_path)
    )
    assert found == pytest.approx(history.summary(), nan_ok=True) and found["A_auc"] > 0 or not evaluated


# Where results go


def test_default_output_folder(tmp_path, capsys):
    first, second = make_run(tmp_path, "misa"), make_run(tmp_path, "slda")
    assert reading.shared_folder([tmp_path]) == tmp_path
    assert reading.shared_folder([first]) == first.parent
    assert reading.shared_folder([first, second]) == tmp_path / "glyphs"
    out, _ = make_table(first, second, capsys=capsys)
    assert str(tmp_path / "glyphs" / "table.md") in out
    assert_picture(tmp_path / "glyphs" / "comparison-glyphs.png")


def test_table_file_holds_what_is_printed(tmp_path, capsys):
    make_run(tmp_path / "runs")
    assert main.main(["report", str(tmp_path / "runs"), "--out", str(tmp_path / "new" / "out")]) == 0
    table = (tmp_path / "new" / "out" / "table.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out.startswith(table)
    files = {path.name for path in (tmp_path / "new" / "out").iterdir()}
    assert files == {"table.md", "table.tex", "seeds.csv", "comparison-glyphs.png"}


def test_every_run_stands_by_itself_in_seeds_csv(tmp_path, capsys):
    for label in ("er", "misa"):
        for seed in (1, 2, 3):
            make_run(tmp_path, label, seed)
    make_table(tmp_path, capsys=capsys)
    lines = pd.read_csv(tmp_path / "seeds.csv")
    assert list(zip(lines["method"], lines["seed"])) == [(name, seed) for name in ("er", "misa") for seed in (1, 2, 3)]
    for _, line in lines.iterrows():
        folder = next(tmp_path.rglob(f"{line['method']}/*seed{line['seed']}"))
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        assert line["A_auc"] == summary["A_auc"] and line["seconds"] == summary["seconds"]


def test_run_named_twice_counts_once(tmp_path, capsys):
    folder = make_run(tmp_path)
    out, _ = make_table(tmp_path, folder, capsys=capsys)
    assert table_rows(out)["misa"][0] == "1" and "2 runs" not in out


def test_moved_runs_give_the_same_table(tmp_path, capsys):
    make_run(tmp_path / "here")
    here = make_table(tmp_path / "here", capsys=capsys)[0]
    shutil.move(tmp_path / "here", tmp_path / "there")
    assert make_table(tmp_path / "there", capsys=capsys)[0] == here.replace("here", "there")


# Pictures


def made_up_stream(num_classes: int, sizes: list[int]) -> tuple[list[np.ndarray], list[int]]:
    labels = np.random.default_rng(0).permutation(np.arange(sum(sizes)) % num_classes)
    tasks = np.split(labels, np.cumsum(sizes)[:-1])
    return tasks, list(dict.fromkeys(labels.tolist()))


@pytest.mark.parametrize(
    "num_classes, sizes", [(5, [400, 200]), (200, [0, 3000, 0, 10, 990, 0]), (1000, [2000] * 10), (10, [1])]
)
@pytest.mark.parametrize("with_blurry", [True, False])
def test_stream_picture(tmp_path, num_classes, sizes, with_blurry):
    tasks, order = made_up_stream(num_classes, sizes)
    plots.draw_stream(tmp_path / "stream.png", tasks, num_classes, order, {0, 2} if with_blurry else None)
    assert_picture(tmp_path / "stream.png")
    assert [path.name for path in tmp_path.iterdir()] == ["stream.png"]


def test_stream_without_images(tmp_path):
    plots.draw_stream(tmp_path / "stream.png", [np.empty(0, int)] * 2, 10, [], set())
    assert_picture(tmp_path / "stream.png")


def test_stream_counts_every_image_in_its_row_and_column():
    counts = plots._images_per_bin(np.array([7, 7, 3, 3, 7]), 2, num_classes=9, class_order=[7, 3])
    assert counts.shape == (9, 3)
    assert counts[:2].tolist() == [[2, 0, 1], [0, 2, 0]] and counts.sum() == 5


def test_stream_colours_tell_blurry_from_disjoint():
    image = plots._tinted(np.array([[0, 1, 5], [5, 1, 0]]), np.array([False, True]))
    assert (image[0, 0] == 1).all() and (image[1, 2] == 1).all()
    assert image[0, 2, 2] > image[0, 2, 0] and image[1, 0, 0] > image[1, 0, 2]  # blue row, red row
    assert image[0, 1].sum() > image[0, 2].sum()  # fewer images are lighter


def made_up_metrics(accuracy: list[float], nominal: list[int] | None = None) -> pd.DataFrame:
    nominal = nominal or [1000 * (index + 1) for index in range(len(accuracy))]
    columns = {"kind": "anytime", "samples_seen": nominal, "nominal": nominal, "accuracy": accuracy}
    return pd.DataFrame(columns | {"task": np.nan, "loss": 1.0, "classes_exposed": 4, "seconds": 1.0})


@pytest.mark.parametrize("accuracy", [[0.5, 0.6, 0.7], [0.5], [float("nan")] * 3, []])
def test_curve_picture(tmp_path, accuracy):
    plots.draw_curve(tmp_path / "curve.png", made_up_metrics(accuracy), "a run")
    assert_picture(tmp_path / "curve.png")


@pytest.mark.parametrize("num_methods", [0, 1, 2, 8])
def test_comparison_picture(tmp_path, num_methods):
    seeds = [made_up_metrics([0.5, 0.6, 0.7]), made_up_metrics([0.4, 0.6])]
    curves = {f"method {index}": seeds for index in range(num_methods)}
    plots.draw_comparison(tmp_path / "comparison.png", curves, "a dataset")
    assert_picture(tmp_path / "comparison.png")


def test_common_grid_is_what_all_seeds_span():
    first = made_up_metrics([0.1, 0.2, 0.3], [1000, 2000, 3000])
    second = made_up_metrics([0.4, 0.8], [1000, 2000])
    grid, accuracy = plots.on_common_grid([first, second])
    assert grid.tolist() == [1000, 2000]
    np.testing.assert_allclose(accuracy, [[10, 20], [40, 80]])


def test_failed_picture_leaves_the_old_one_and_is_a_warning(tmp_path, capsys):
    (tmp_path / "stream.png").write_text("old")
    assert not plots.draw_stream(tmp_path / "stream.png", [np.array([3])], 5, class_order=[1])
    assert (tmp_path / "stream.png").read_text() == "old"
    warning = capsys.readouterr().err
    assert warning.startswith(f"warning: {tmp_path / 'stream.png'} was not drawn (") and warning.count("\n") == 1


DRAW = """
import sys
import numpy as np
from datasets.drawing import characters
from pathlib import Path
from utils.runs import plots
assert plots.draw_stream(Path(sys.argv[1]), [np.array([0, 1])], 2, [0, 1], {1})
assert characters.render("a", characters.SANS[0]).any()
"""


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "nonsense"])
def test_pictures_need_neither_latex_nor_the_backend_of_a_notebook(backend, tmp_path):
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nfont.family: no such font\nsavefig.format: pdf\n")
    environment = os.environ | {"MPLBACKEND": backend, "PYTHONPATH": str(ROOT), "PATH": ""}
    command = [sys.executable, "-c", DRAW, tmp_path / "stream.png"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "stream.png").read_bytes().startswith(b"\x89PNG")
