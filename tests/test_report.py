"""Tables and pictures made from run folders that were written by hand."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
import yaml

from utils import plots, report
from utils.args import RunArgs

ROOT = Path(__file__).resolve().parent.parent
METRICS_HEADER = "kind,samples_seen,nominal,task,accuracy,loss,classes_exposed,seconds"
STREAM = {"n_tasks": 5, "n": 50, "m": 10, "batch_size": 64}


def make_run(
    runs: Path,
    label: str = "misa",
    seed: int = 1,
    time: str = "20250101-000000",
    scores: dict | None = None,
    dataset: str = "glyphs",
    scenario: str = "si-blurry",
    run: dict | None = None,
    method: dict | None = None,
    host: dict | None = None,
    **summary,
) -> Path:
    """A finished run. scores: metric -> fraction, the others undefined."""
    model = label.split()[0]
    folder = runs / dataset / model / f"{time}-seed{seed}"
    folder.mkdir(parents=True)
    options = {"model": model, "dataset": dataset, "scenario": scenario, "seed": seed, "device": "cpu", **STREAM}
    config = {"run": options | (run or {}), "method": method or {"lr": 0.005}}
    if host is not None:
        config["host"] = host
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    values = {
        "label": label,
        **dict.fromkeys(report.METRICS),
        **(scores if scores is not None else {"A_auc": 0.5}),
        "complete": True,
        "samples": 3000,
        "seconds": 10.0,
        "trainable_parameters": 12345,
        "needs_task_boundaries": False,
        "stream_sha256": f"stream {seed}",
    }
    (folder / "summary.json").write_text(json.dumps(values | summary))
    lines = [METRICS_HEADER]
    for nominal in (1000, 2000, 3000):
        lines.append(f"anytime,{nominal + 24},{nominal},,{0.5 + seed / 100},1.2,4,3.5")
    lines.append("task_end,3000,,0,0.4,,4,10.0")
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    return folder


def kill(folder: Path, metrics: str) -> None:
    """Leaves of a run what a killed one leaves."""
    (folder / "summary.json").unlink()
    (folder / "metrics.csv").write_text(metrics)


def table_rows(text: str) -> dict[str, list[str]]:
    """Method -> its other cells."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return {cells[0]: cells[1:] for cells in lines if cells[0] != "method" and set(cells[0]) != {"-"}}


def make_table(*folders: Path, capsys) -> tuple[str, str]:
    """(stdout, stderr) of a report that must succeed."""
    code = report.main([str(folder) for folder in folders])
    out, err = capsys.readouterr()
    assert code == 0, err
    return out, err


def error_of(*arguments: str, capsys) -> str:
    """The one line of a report that must fail."""
    code = report.main(list(arguments))
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
        "misa": ["3", "53.00 ± 3.61", "40.00 ± 0.00", "30.00 ± 0.00", "-1.00 ± 0.00", "–", "no", "12,345", "300"]
    }


def test_one_seed_has_no_deviation_and_nan_is_a_dash(tmp_path, capsys):
    make_run(tmp_path, scores={"A_auc": 0.5, "BWT": float("nan")}, needs_task_boundaries=True)
    cells = table_rows(make_table(tmp_path, capsys=capsys)[0])["misa"]
    assert cells[:7] == ["1", "50.00", "–", "–", "–", "–", "yes"]


def test_value_undefined_for_some_seeds_is_told():
    assert report.percent([0.1, None, 0.3]) == "20.00 ± 14.14 (of 2)"


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


def test_incidental_options_exist():
    assert report.INCIDENTAL.issubset(field.name for field in dataclasses.fields(RunArgs))


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
    make_run(tmp_path, "slda", stream_sha256="another")
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
    lines = report.markdown_table([["method", "x"], ["a|b", "1"]]).splitlines()
    assert lines[2] == "| a\\|b   | 1 |"


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
    metrics = report.read_metrics(tmp_path)
    assert metrics["samples_seen"].tolist() == [64]
    assert metrics["accuracy"].tolist() == [0.5]


@pytest.mark.parametrize(
    "file, text, reason",
    [
        ("summary.json", '{"A_auc": 0.', "is damaged"),
        ("summary.json", "[]", "found list"),
        ("summary.json", '{"label": "misa"}', "lacks needs_task_boundaries, A_auc"),
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


def test_text_where_a_number_belongs(tmp_path, capsys):
    make_run(tmp_path, seed=1)
    make_run(tmp_path, seed=2, A_auc="high")
    assert "A_auc is 'high', not a number" in make_table(tmp_path, capsys=capsys)[1]


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
    command = [sys.executable, "-m", "utils.report", str(tmp_path / "absent")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_import_loads_no_drawing_library():
    code = "import sys, utils.report; sys.exit('matplotlib' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_missing_folder(tmp_path, capsys):
    assert "absent: no such folder" in error_of(str(tmp_path / "absent"), capsys=capsys)


def test_folder_without_runs(tmp_path, capsys):
    assert f"no run below {tmp_path}" in error_of(str(tmp_path), capsys=capsys)


def test_unknown_option(tmp_path, capsys):
    assert "did you mean --out?" in error_of(str(tmp_path), "--ou=x", capsys=capsys)


def test_output_that_cannot_be_written(tmp_path, capsys):
    runs = make_run(tmp_path)
    (tmp_path / "file").write_text("")
    assert "--out DIR" in error_of(str(runs), "--out", str(tmp_path / "file"), capsys=capsys)


# Where results go


def test_default_output_folder(tmp_path, capsys):
    first, second = make_run(tmp_path, "misa"), make_run(tmp_path, "slda")
    assert report.shared_folder([tmp_path]) == tmp_path
    assert report.shared_folder([first]) == first.parent
    assert report.shared_folder([first, second]) == tmp_path / "glyphs"
    out, _ = make_table(first, second, capsys=capsys)
    assert str(tmp_path / "glyphs" / "table.md") in out
    assert_picture(tmp_path / "glyphs" / "comparison-glyphs.png")


def test_table_file_holds_what_is_printed(tmp_path, capsys):
    make_run(tmp_path / "runs")
    assert report.main([str(tmp_path / "runs"), "--out", str(tmp_path / "new" / "out")]) == 0
    table = (tmp_path / "new" / "out" / "table.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out.startswith(table)
    assert {path.name for path in (tmp_path / "new" / "out").iterdir()} == {"table.md", "comparison-glyphs.png"}


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


@pytest.mark.parametrize("num_methods", [0, 1, 2, 12])
def test_comparison_picture(tmp_path, num_methods):
    runs = [made_up_metrics([0.5, 0.6, 0.7]), made_up_metrics([0.4, 0.6])]
    curves = {f"method {index}": runs for index in range(num_methods)}
    plots.draw_comparison(tmp_path / "comparison.png", curves, "a dataset")
    assert_picture(tmp_path / "comparison.png")


def test_common_grid_is_what_all_seeds_span():
    first = made_up_metrics([0.1, 0.2, 0.3], [1000, 2000, 3000])
    second = made_up_metrics([0.4, 0.8], [1000, 2000])
    grid, accuracy = plots._on_common_grid([first, second])
    assert grid.tolist() == [1000, 2000]
    np.testing.assert_allclose(accuracy, [[10, 20], [40, 80]])


def test_failed_picture_leaves_the_old_one(tmp_path):
    (tmp_path / "stream.png").write_text("old")
    with pytest.raises(ValueError):
        plots.draw_stream(tmp_path / "stream.png", [np.array([3])], 5, class_order=[1])
    assert (tmp_path / "stream.png").read_text() == "old"
