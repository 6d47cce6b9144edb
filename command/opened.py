"""The learner of a run that has ended, from its folder alone: it predicts, and it learns on where the run stopped."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor

import backbone as backbones
from utils import device as devices
from utils import plan as plans
from utils.contracts import Learner
from utils.data.decode import MAX_PIXELS, decode, each_decoded, in_colour, squared
from utils.data.images import ImageSet
from utils.errors import UsageError, printable, reason
from utils.files.manifest import changed_files
from utils.files.tensors import read_tensors
from utils.plan import Plan
from utils.registry import METHODS, add_plugins
from utils.runs import checkpoint
from utils.runs.description import FILE, Description, read_description
from utils.runs.folder import STATE
from utils.runs.reading import Run, read_labels, read_run
from utils.streams.base import Ended
from utils.training.assembly import assemble
from utils.training.history import History
from utils.training.loop import Trainer

WEIGHTS = "model.safetensors"
WITHOUT_STATE = " (--no-keep_state, or an older version)"
LATER = "target_factor"  # ends the name of a tensor that older runs took from a product
Pictures = Sequence[str | Path | Image.Image] | np.ndarray | Tensor


def open_run(
    folder: str | Path, device: str | None = None, plugins: str | None = None, to_learn: bool = True
) -> Opened:
    """The learner of the run in `folder`. device: as `--device`; to learn, by default the CPU for a run that was on the
    CPU. plugins: folder of methods and datasets that the run needs. to_learn: False spares reading what predictions do
    not need. Runs nothing of what is in the folder.

    Raises UsageError for what is no run, or one that nothing can be asked.
    """
    folder = Path(folder)
    if plugins:
        add_plugins(plugins)
    run = _ended(folder)
    plan = _plan(folder, run.config)
    if not plan.method.evaluated:
        raise UsageError(f"{folder}: is a run of {plan.run.model}, a stage, whose learner predicts no classes")
    _check_files(run, WEIGHTS, FILE)
    tensors = read_tensors(folder / WEIGHTS)
    description = read_description(folder)
    older = description is None
    description = description or _of_older(folder, plan, tensors)
    if description.side is None:
        raise UsageError(f"{folder}: is a run on numbers ({plan.run.dataset}), which no picture becomes")
    if device is None and to_learn and description.device == "cpu":
        device = "cpu"  # where its memories lie
    with _own_draws():
        trainer = _trainer(folder, plan, description, devices.pick(device), restored=not older)
        state, why_not = None, f"holds no {STATE[1]}, without which nothing goes on from it{WITHOUT_STATE}"
        if STATE[1] in run.ended.sha256 and (to_learn or trainer.model.predicts_from_state):
            _check_files(run, *STATE)
            state = checkpoint.read_state(folder, trainer.device)
        _fill(folder, trainer, tensors, state, description.labels, older)
        random = devices.random_states(trainer.device)
    if state is not None:
        why_not = ""
        if trainer.device.type == "cuda" and description.device == "cpu":
            why_not = "its run was on the CPU, and nothing else goes on from there; device='cpu'"
    return Opened(folder, plan, description, trainer, random, why_not)


@dataclass
class Opened:
    """A learner that can be asked and taught. plan: settings of its run. description: as the run left it. random: of
    torch's global generators the states, which are the learner's own while it learns. why_not: it cannot learn."""

    folder: Path
    plan: Plan
    description: Description
    trainer: Trainer
    random: dict[str, Tensor]
    why_not: str

    def __post_init__(self) -> None:
        known = range(self.description.num_classes)
        self._names = [self.description.name(label) for label in known]  # by label, new classes behind them

    @property
    def names(self) -> list[str]:
        """Of the classes that compete, in the order of `predict`'s columns."""
        met = [self._names[label] for label in self.trainer.seen.labels]
        if self.plan.run.eval_mask == "seen":
            return met
        return met + [f"(output {k}, no class yet)" for k in range(len(met), self.description.num_outputs)]

    @property
    def by_batch(self) -> str | None:
        """What makes a prediction depend on what else is in its batch, None where it does not."""
        return self.model.by_batch

    @property
    def model(self) -> Learner:
        return self.trainer.model

    def predict(self, images: Pictures, batch_size: int | None = None) -> tuple[list[str], Tensor]:
        """The most probable class of each picture [N], and the probabilities of all `names` [N, C].

        images: files, PIL pictures, or uint8 [N, 3, H, W]. batch_size: pictures at a time, by default that of the run's
        evaluation. Raises UsageError for a picture that cannot be read.
        """
        held = self._held(images)
        parts = [self.probabilities(part) for part in held.split(batch_size or self.plan.run.eval_batch_size)]
        found = torch.cat(parts) if parts else torch.empty(0, len(self.names))
        return [self.names[k] for k in found.argmax(dim=1).tolist()] if len(found) else [], found

    def learn(self, images: Pictures, labels: Sequence[str | int]) -> None:
        """Goes on where the run stopped: pictures that arrive now, in batches of its `--batch_size`, each trained on as
        in the run. images: as in `predict`. labels: a name, or the number of a known class, for each; a class that was
        not met before takes the next output of the classifier.

        Raises UsageError where that is not possible, FloatingPointError for a loss that is not finite.
        """
        self._check_can_learn()
        held = self._held(images)
        if len(held) != len(labels):
            raise UsageError(f"{len(held)} images and {len(labels)} labels; give one label for each image")
        if not len(held):
            return
        numbers = self._labels(labels)
        images_now = ImageSet(held.numpy(), np.asarray(numbers), self.trainer.device)
        with _own_draws(self.random, self.trainer.device):
            self.trainer.learn(images_now, self.plan.run.batch_size)
            self.random = devices.random_states(self.trainer.device)

    def predictions(self, paths: Sequence[Path], batch_size: int | None = None) -> Iterator[tuple[Path, Tensor | str]]:
        """Every file, in order, with the probabilities of all `names` [C], or why it cannot be read."""
        size = batch_size or self.plan.run.eval_batch_size
        waiting: list[tuple[Path, np.ndarray | str]] = []
        arrays: list[np.ndarray] = []
        for path, image in zip(paths, each_decoded(paths, *self._fit(), self._max_pixels(), size), strict=True):
            waiting.append((path, image))
            if not isinstance(image, str):
                arrays.append(image)
            if len(arrays) == size:
                yield from self._answered(waiting, arrays)
                waiting, arrays = [], []
        yield from self._answered(waiting, arrays)

    def _answered(
        self, waiting: list[tuple[Path, np.ndarray | str]], arrays: list[np.ndarray]
    ) -> Iterator[tuple[Path, Tensor | str]]:
        found = iter(self.probabilities(self._coloured(np.stack(arrays)))) if arrays else iter(())
        for path, image in waiting:
            yield path, image if isinstance(image, str) else next(found)

    @torch.no_grad()
    def probabilities(self, held: Tensor) -> Tensor:
        """Of one batch of images, uint8 [B, 3, S, S] as the run holds them: [B, C] for the C `names`, on the CPU.

        Raises FloatingPointError for logits that are not finite.
        """
        model, seen = self.model, len(self.trainer.seen)
        model.eval()
        with model.autocast():
            logits = model(self.trainer.transform.test(held.to(self.trainer.device))).float()
        competing = logits[:, :seen] if self.plan.run.eval_mask == "seen" else logits
        undefined = ~logits[:, :seen].isfinite().all(dim=1) | (competing.isnan() | (competing == torch.inf)).any(dim=1)
        if lost := int(undefined.sum()):
            why = model.why_not_finite()
            raise FloatingPointError(
                f"the logits of {lost} of {len(held)} images are not finite numbers" + (f": {why}" if why else "")
            )
        return competing.softmax(dim=1).cpu()

    # What comes in

    def _fit(self) -> tuple[int, Any]:
        assert self.description.held is not None
        return self.description.held, self.description.fit

    def _max_pixels(self) -> int:
        return getattr(self.plan.data, "max_pixels", MAX_PIXELS)

    def _held(self, images: Pictures) -> Tensor:
        """Pictures as the run holds its own: uint8 [N, 3, S, S]."""
        size, fit = self._fit()
        if isinstance(images, np.ndarray | Tensor):
            array = np.asarray(images.cpu() if isinstance(images, Tensor) else images)
            if array.dtype != np.uint8 or array.ndim != 4 or array.shape[1] != 3:
                raise UsageError(f"images are {array.dtype} {list(array.shape)}; uint8 [N, 3, H, W] is needed")
            if array.shape[2:] == (size, size):
                return self._coloured(array)
            images = [Image.fromarray(np.ascontiguousarray(one.transpose(1, 2, 0))) for one in array]
        elif isinstance(images, str | Path | Image.Image):
            raise UsageError("give a list of images, one alone too")
        found = [self._one(image, size, fit) for image in images]
        return self._coloured(np.stack(found) if found else np.empty((0, 3, size, size), np.uint8))

    def _one(self, image: str | Path | Image.Image, size: int, fit: Any) -> np.ndarray:
        try:
            if isinstance(image, Image.Image):
                return squared(in_colour(image), size, fit)
            return decode(Path(image), size, fit, self._max_pixels())
        except Exception as error:  # Pillow raises many types; whichever it is, the file is no usable image
            name = "a picture" if isinstance(image, Image.Image) else printable(str(image))
            why = error.strerror if isinstance(error, OSError) and error.strerror else reason(error)
            raise UsageError(f"{name}: cannot be read ({printable(why)})") from None

    def _coloured(self, array: np.ndarray) -> Tensor:
        """For a network of grey images each picture's brightness, three times."""
        if self.description.channels == 3:
            return torch.from_numpy(np.ascontiguousarray(array))
        grey = [np.asarray(Image.fromarray(one).convert("L")) for one in array.transpose(0, 2, 3, 1)]
        flat = np.stack(grey) if grey else np.empty((0, *array.shape[2:]), np.uint8)
        return torch.from_numpy(np.repeat(flat[:, None], 3, axis=1))

    # What is learnt

    def _check_can_learn(self) -> None:
        if self.why_not:
            raise UsageError(f"{self.folder}: {self.why_not}")
        if self.plan.dataset is None:
            raise UsageError(f"{self.folder}: its dataset {self.plan.run.dataset} is not known here; name its plugins")
        if self.model.needs_task_boundaries:
            raise UsageError(f"{self.model.label()} is told where a task begins and ends, which nobody does here")

    def _labels(self, given: Sequence[str | int]) -> list[int]:
        """Raw labels. Raises UsageError if a class is new and has no output, before anything is learnt."""
        known = {name: label for label, name in enumerate(self._names)}
        found: list[int] = []
        added: list[str] = []
        for one in given:
            name = str(one)
            if not isinstance(one, str) and 0 <= one < len(self._names):
                name = self._names[int(one)]
            if name not in known:
                known[name] = len(self._names) + len(added)
                added.append(name)
            found.append(known[name])
        seen, outputs = self.trainer.seen, self.description.num_outputs
        new = [label for label in dict.fromkeys(found) if label not in seen.labels]
        if added and self.description.num_domains > 1:
            raise UsageError(printable(f"class {added[0]}: is none of the run's, whose domains share their classes"))
        if len(seen) + len(new) > outputs:
            name = [*self._names, *added][new[outputs - len(seen)]]
            raise UsageError(
                printable(f"class {name}: is new, and the {outputs} outputs of the classifier have classes already")
            )
        self._names += added
        return found


class _Undeclared:
    """In place of a dataset that is not known here."""

    max_domains, num_slots, tasks = 0, 0, None

    def augment(self, images: Tensor, generator: Generator) -> Tensor:
        return images


def _ended(folder: Path) -> Run:
    """The run in a folder. Raises UsageError unless it has ended and left its weights."""
    if not os.path.isdir(folder):
        raise UsageError(printable(f"{folder}: no such folder, or not readable; give the folder of a run"))
    if not os.path.lexists(folder / "config.yaml"):
        raise UsageError(printable(f"{folder}: is no run, whose folder holds a config.yaml"))
    run = read_run(folder)
    if run.summary is None:
        raise UsageError(printable(f"{folder}: the run has not ended; --resume {folder} with its options goes on"))
    if not os.path.lexists(folder / WEIGHTS):
        raise UsageError(printable(f"{folder}: the run has no weights, {WEIGHTS} is not there; repeat the run"))
    return run


def _check_files(run: Run, *names: str) -> None:
    """Raises UsageError if one of these files is not what the run left."""
    if changed := changed_files(run.folder, {n: digest for n, digest in run.ended.sha256.items() if n in names}):
        raise UsageError(printable(f"{run.folder}: {', '.join(changed)}: not what the run left; repeat the run"))


def _plan(folder: Path, config: dict[str, Any]) -> Plan:
    """The settings of a run. Raises UsageError for those that this version does not know."""
    model = config["run"]["model"]
    if not METHODS.is_known(model):
        raise UsageError(f"{folder}: its method {model} is not known here; name its --plugins, or use its version")
    try:
        plan = plans.restored(config)
        plan.method.prepare(plan.run, plan.method_args)
    except UsageError as error:
        raise UsageError(printable(f"{folder}: is a run of another version: {error}")) from None
    return plan


def _trainer(folder: Path, plan: Plan, description: Description, device: torch.device, restored: bool) -> Trainer:
    """As the run began, behind its end."""
    stream = Ended(description.num_images, description.num_batches)
    for name in ("num_outputs", "num_tasks", "batches_per_update", "num_domains"):
        setattr(stream, name, getattr(description, name))
    # Classes that the run did not know can come in their place, as long as there are outputs.
    stream.num_classes = description.num_classes + (description.num_outputs if description.num_domains == 1 else 0)
    dataset: Any = _Undeclared() if plan.dataset is None else plan.dataset(plan.data)
    dataset.mean, dataset.std = tuple(description.mean), tuple(description.std)
    side = description.held or 0
    nothing = ImageSet(np.empty((0, 3, side, side), np.uint8), np.empty(0, np.int64), device)
    try:
        network = backbones.build(plan.run.backbone, description.shape).requires_grad_(False)
        return assemble(plan, dataset, network, (nothing, None), stream, description.side, restored)
    except UsageError as error:
        raise UsageError(printable(f"{folder}: {error}")) from None


def _fill(
    folder: Path,
    trainer: Trainer,
    tensors: dict[str, Tensor],
    state: dict[str, Any] | None,
    labels: list[int],
    older: bool,
) -> None:
    """Puts in what the run left. state: None where it kept none; then it predicts, if weights are enough for that."""
    model = trainer.model
    own = model.state_dict()
    places = {tensor.data_ptr() for name, tensor in own.items() if name in tensors}
    lacking = [name for name, tensor in own.items() if name not in tensors and tensor.data_ptr() not in places]
    lacking = [name for name in lacking if own[name].numel() and not (older and name.endswith(LATER))]
    odd = [name for name in tensors if name not in own]
    odd += [name for name in own if name in tensors and not _alike(own[name], tensors[name])]
    if lacking or odd:
        what = f"lacks {lacking[0]}" if lacking else f"holds {odd[0]}, which does not fit"
        raise UsageError(printable(f"{folder / WEIGHTS}: {what}; the run is of another version"))
    if state is None and model.predicts_from_state:
        raise UsageError(
            f"{folder}: holds no {STATE[1]}, which {model.label()} predicts from beside its weights{WITHOUT_STATE}; "
            "repeat the run"
        )
    try:
        if state is None:
            model.load_state_dict(own | tensors)
            trainer.seen.add(torch.tensor(labels, dtype=torch.int64))
        else:
            random = devices.random_states(trainer.device) | state["random"]  # the run may have been on a CPU
            trainer.load_state_dict(state | {"model": tensors, "history": History().state_dict(), "random": random})
        if trainer.seen.labels != labels:
            raise ValueError("it has met other classes than the run")
        model.to(trainer.device)
    except Exception as error:  # somebody else's state; a method may raise anything at it
        raise UsageError(printable(f"{folder}: its state does not fit this run ({reason(error)})")) from None


def _alike(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype


def _of_older(folder: Path, plan: Plan, tensors: dict[str, Tensor]) -> Description:
    """Of a run whose version left none: from its tables, its weights, and what its dataset declares."""
    if plan.dataset is None:
        raise UsageError(f"{folder}: its dataset {plan.run.dataset} is not known here; name its --plugins")
    dataset, options = plan.dataset, plan.run
    labels, names = read_labels(folder)
    side = None
    if dataset.num_inputs is None:
        given = getattr(plan.data, "input_size", None)
        side = dataset.image_size or backbones.input_size(options.backbone) or given or dataset.native_size
    heads = [tensors[name] for name in ("head.weight", "host.head.weight", "head.last.weight") if name in tensors]
    if not heads or heads[0].ndim != 2 or (side is None and dataset.num_inputs is None):
        raise UsageError(f"{folder}: holds no {FILE}, an older version made it; repeat the run")
    outputs = len(heads[0])
    num_classes = max([getattr(dataset, "num_classes", 0), outputs, *(label + 1 for label in labels)])
    return Description(
        names=[names.get(label, str(label)) for label in range(num_classes)],
        labels=labels,
        channels=1 if dataset.grey else 3,
        side=side,
        held=None if side is None else min(side, getattr(dataset, "stored_size", None) or side),
        fit=getattr(dataset, "fit", "squash"),
        num_inputs=dataset.num_inputs,
        mean=[1.0] * 3 if side is None else list(dataset.mean),
        std=[1.0] * 3 if side is None else list(dataset.std),
        num_classes=num_classes,
        num_outputs=outputs,
        num_tasks=options.n_tasks if plan.tasks is None else len(plan.tasks.coming(options.n_tasks)),
        num_images=1,
        num_batches=1,
    )


@contextlib.contextmanager
def _own_draws(states: dict[str, Tensor] | None = None, device: torch.device | None = None) -> Iterator[None]:
    """Leaves torch's global generators as they were. states: those of the work inside."""
    before = devices.random_states(device or torch.device("cuda" if torch.cuda.is_initialized() else "cpu"))
    try:
        if states is not None and device is not None:
            devices.set_random_states(states, device)
        yield
    finally:
        devices.set_random_states(before, torch.device("cuda" if "cuda" in before else "cpu"))
