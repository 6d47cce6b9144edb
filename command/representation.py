"""How sparse the features of networks are: `python main.py representation --backbone B --dataset D FILE...`.

Prints a table with a line per weight file: the share of units that are active (> 0) for an image, and of units that are
dead, active for none. Draws, per file, the features of three images and their mean as maps, and in how many images
units are active.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from utils import requirements
from utils.args import Parser, add_options, option_names
from utils.errors import UsageError, printable
from utils.registry import DATASETS
from utils.runs import signals
from utils.runs.cores import Cores

if TYPE_CHECKING:
    from torch import Tensor, nn

    from utils.data.images import ImageSet, Transform

SHOWN = 3  # images of which there are maps
BATCH = 128
BINS = 25  # of the histogram


def main(argv: list[str]) -> None:
    parser = Parser(prog="main.py representation", description="How sparse the features of networks are.")
    parser.add_argument("files", metavar="FILE", nargs="+", help="weights, as --backbone_path takes them")
    parser.add_argument("--backbone", metavar="STR", required=True, help="the network that they fit")
    parser.add_argument("--dataset", metavar="STR", required=True, help="whose training images are looked at")
    parser.add_argument(
        "--images", type=int, metavar="INT", default=10_000, help="how many, evenly over all of them [10000]"
    )
    parser.add_argument("--out", metavar="DIR", default="runs/representation", help="of pictures [runs/representation]")
    parser.add_argument("--data_dir", metavar="DIR", default="data", help="folder of the datasets [data]")
    parser.add_argument("--cache_dir", metavar="DIR", default="data", help="folder of what is made of them [data]")
    parser.add_argument("--device", metavar="STR", help="cpu, cuda or cuda:<index> [cuda if there is one]")
    own = dataset_options(parser, argv)
    options = parser.parse(argv)
    if options.images < SHOWN:
        raise UsageError(f"--images {options.images}: give a number of images, at least {SHOWN}")
    requirements.check()
    import torch

    from backbone.products import input_shape, open_dataset
    from utils import device as devices
    from utils import plan as plans
    from utils.data.images import Transform, image_set
    from utils.files.disk import check_writable
    from utils.report.markup import markdown_table
    from utils.representation import statistics

    with signals.obeyed(), Cores() as cores:
        device = devices.pick(options.device)
        given = {name: getattr(options, name) for name in ("backbone", "dataset", "data_dir", "cache_dir")}
        given |= {name: getattr(options, name) for name in own if hasattr(options, name)}
        if DATASETS.load(options.dataset).num_inputs is not None:
            raise UsageError(f"--dataset {options.dataset}: features of images are looked at, and it holds numbers")
        plan = plans.make({"model": "ncm", **given})  # any method: of the plan only its data are used
        dataset, places = open_dataset(plan)
        shape = input_shape(dataset, places.size)
        networks = [loaded(options.backbone, shape, Path(name)).to(device) for name in options.files]
        check_writable(Path(options.out), "--out")
        dataset.survey(places, test=False)
        images = image_set(dataset, plan.run, dataset.load(places, train=True), device, None)
        transform = Transform(dataset, device, 0, places.size)
        cores.take(device)
        rows = torch.linspace(0, len(images) - 1, min(options.images, len(images))).long()
        shown = rows[torch.linspace(0, len(rows) - 1, SHOWN + 2)[1:-1].long()]  # not the first, nor the last
        names = labels_of([printable(name) for name in options.files])
        table = [["weights", "units", "active per image (%)", "dead units (%)"]]
        maps, lifetimes = {}, {}
        for name, network in zip(names, networks):
            features = features_of(network, images, transform, rows)
            found = statistics(features)
            shares = (f"{100 * share:.1f}" for share in (found.instance_sparsity, found.dead))
            table.append([name, f"{features.shape[1]:,}", *shares])
            few = features_of(network, images, transform, shown)
            maps[name] = torch.cat([few, features.mean(dim=0, keepdim=True)])
            lifetimes[name] = found.lifetimes
        print(markdown_table(table))
        print(f"\nOver {len(rows):,} training images of {plan.run.dataset}.", flush=True)
        pictures = images.raw(shown).cpu()
        end = printable(f"{options.backbone}-{plan.run.dataset}.png")
        for kind, draw, content in (("maps", draw_maps, (maps, pictures)), ("lifetimes", draw_lifetimes, (lifetimes,))):
            path = Path(options.out, f"{kind}-{end}")
            if draw(path, *content):
                print(path)


def dataset_options(parser: Parser, argv: list[str]) -> set[str]:
    """Adds those of the dataset that is named, and gives their names."""
    first = Parser(add_help=False)
    first.add_argument("--dataset")
    chosen, _ = first.parse_known_args(argv)
    if not chosen.dataset:
        return set()
    kind = DATASETS.load(chosen.dataset).Args
    add_options(parser, f"options of {DATASETS.resolve(chosen.dataset)}", kind)
    return option_names(kind)


def loaded(name: str, shape: tuple, file: Path) -> nn.Module:
    """The network with the weights of a file. Raises UsageError for one that does not fit."""
    import backbone as backbones

    if not file.is_file():
        raise UsageError(printable(f"{file}: no such file; give weights as --backbone_path takes them"))
    network = backbones.build(name, shape).requires_grad_(False).eval()
    backbones.load_weights(network, file)
    return network


def labels_of(names: list[str]) -> list[str]:
    """What to call files: by their last parts, as many as tell them apart; whole and numbered where one is given
    twice."""
    for count in range(1, 1 + max(len(Path(name).parts) for name in names)):
        short = [str(Path(*Path(name).with_suffix("").parts[-count:])) for name in names]
        if len({*short}) == len(names):
            return short
    return [f"{k + 1}: {name}" for k, name in enumerate(names)]


def features_of(network: nn.Module, images: ImageSet, transform: Transform, rows: Tensor) -> Tensor:
    """Of these images under the test transform [N, D], on the CPU."""
    import torch

    from backbone import features

    with torch.no_grad():
        return torch.cat([features(network, transform.test(images.raw(part))).cpu() for part in rows.split(BATCH)])


# Pictures


def draw_maps(path: Path, maps: dict[str, Tensor], pictures: Tensor) -> bool:
    """A row per file: its features of SHOWN images and their mean over all, negative ones as 0, each divided by its
    largest. maps: [SHOWN + 1, D]. pictures: uint8 [SHOWN, 3, H, W], drawn above."""
    import matplotlib
    import torch.nn.functional as F

    from utils.representation import map_shape
    from utils.runs.plots import literal, new_figure, picture, save

    @picture
    def draw(path: Path) -> None:
        shapes = [map_shape(values.shape[1]) for values in maps.values()]
        heights = [1.0] + [min(1.6, 1.9 * rows / columns) + 0.1 for rows, columns in shapes]
        figure, first = new_figure(8.4, sum(heights) + 0.55)
        first.remove()
        grid = figure.subplots(len(heights), SHOWN + 1, squeeze=False, height_ratios=heights)
        for axes in grid.flat:
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        for axes, image in zip(grid[0], pictures):
            axes.imshow(image.permute(1, 2, 0).numpy())
        colours = matplotlib.colormaps["Blues"].with_extremes(bad="0.85")
        for line, (name, values), (rows, columns) in zip(grid[1:], maps.items(), shapes):
            active = values.clamp(min=0)
            active = active / active.amax(dim=1, keepdim=True).clamp(min=1e-12)
            active = F.pad(active, (0, rows * columns - active.shape[1]), value=float("nan"))  # empty places
            for axes, one in zip(line, active.reshape(-1, rows, columns).numpy()):
                shown = axes.imshow(one, cmap=colours, vmin=0, vmax=1, interpolation="nearest")
                axes.spines[:].set(visible=True, color="0.6", linewidth=0.6)
            line[0].set_ylabel(literal(name), fontsize=9)
        grid[0, SHOWN].set_visible(False)
        for k, axes in enumerate(grid[1]):
            axes.set_title("mean of all images" if k == SHOWN else f"image {k + 1}", fontsize=9)
        bar = figure.colorbar(shown, ax=grid, shrink=0.8, aspect=25, pad=0.01)
        bar.set_label("activation / largest", fontsize=9)
        bar.outline.set_visible(False)
        save(figure, path)

    return draw(path)


def draw_lifetimes(path: Path, lifetimes: dict[str, Tensor]) -> bool:
    """A histogram per file: percent of its units over the percent of images in which a unit is active, dead ones in a
    bar of their own. lifetimes: [D]."""
    import numpy as np

    from utils.runs.plots import BLUE, VERMILLION, literal, new_figure, picture, save

    @picture
    def draw(path: Path) -> None:
        columns = min(3, len(lifetimes))
        lines = -(-len(lifetimes) // columns)
        figure, first = new_figure(max(4.2, 3.0 * columns), 2.3 * lines + 0.5)
        first.remove()
        grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
        for axes in grid.flat[len(lifetimes) :]:
            axes.set_visible(False)
        edges = np.linspace(0, 100, BINS + 1)
        for axes, (name, values) in zip(grid.flat, lifetimes.items()):
            percent = 100 * values.numpy()
            counts = 100 * np.histogram(percent[percent > 0], edges)[0] / len(percent)
            axes.bar(edges[:-1], counts, 100 / BINS, align="edge", color=BLUE, edgecolor="white", linewidth=0.4)
            dead = 100 * float(np.mean(percent == 0))
            axes.bar([-100 / BINS], [dead], 100 / BINS, align="edge", color=VERMILLION, label=f"dead: {dead:.1f} %")
            axes.set_title(literal(name), fontsize=9)
            axes.legend(frameon=False, fontsize=8, handlelength=1)
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(axis="y", color="0.92")
            axes.set_axisbelow(True)
        figure.supxlabel("images in which a unit is active (%)", fontsize=10)
        figure.supylabel("units (%)", fontsize=10)
        save(figure, path)

    return draw(path)


if __name__ == "__main__":
    raise SystemExit("python main.py representation does this")
