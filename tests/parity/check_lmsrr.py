"""LMSRR: every step with the recorded draws, memory, switches, final weights, features and logits of an evaluation."""

from __future__ import annotations

import inspect
from functools import partial
from pathlib import Path

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from backbone import Several
from backbone.vit import each_block
from models.lmsrr import Lmsrr, LmsrrArgs
from utils.args import option_names
from utils.buffer import ReservoirBuffer
from utils.contracts import StreamInfo
from utils.training.evaluation import Scores

from .goldens import DEVICE, Case
from .replay import Recorded, Unchanged, consecutive, train

AUGMENTATION = "none (buffer images are used as stored); images already at network size, no resize"
LOGITS = "step<k>/logits are the unmasked logits of the current batch before the update"


def check(case: Case, folder: Path) -> None:
    Replay(case).run()


class Replay:
    """One case, run through the loop; everything is compared where it is computed."""

    def __init__(self, case: Case):
        self.case, self.config, self.tolerances = case, case.settings["config"], case.settings["tolerances"]
        self.step = -1  # the one that runs
        assert case.settings["augmentation"] == AUGMENTATION and case.settings["logits"] == LOGITS
        known = option_names(LmsrrArgs) - {"aro", "fusion", "replay"}  # as released
        args = LmsrrArgs(**{name: self.config[name] for name in known & self.config.keys()})
        case.expect("optimizer", f"SGD(lr={args.lr}, momentum=0, weight_decay=0), rebuilt at the start of every task")
        assert known <= self.config.keys(), f"{case.name}: config lacks {known - self.config.keys()}"
        info = StreamInfo(
            num_classes=self.config["num_classes"],
            num_tasks=len(self.config["tasks"]),
            num_images=0,
            num_updates=0,
            image_size=case.settings["tiny_vit"]["img_size"],
            seed=0,
            augment=Unchanged().train,
            plain=Unchanged().test,
        )
        self.model = Lmsrr(self.networks(), info, args)
        with torch.no_grad():
            for name, weight in self.parameters().items():
                initial = case[name]
                assert initial.shape == weight.shape, f"{case.name}: {name} is {list(initial.shape)}"
                weight.copy_(initial)
        self.model.optimizer = self.model.configure_optimizer()

    def networks(self) -> Several:
        entry, vits = self.case.settings["tiny_vit"], []
        shape = {name: entry[name] for name in inspect.signature(VisionTransformer).parameters.keys() & entry.keys()}
        for _ in range(entry["sources"]):
            norm = partial(nn.LayerNorm, eps=entry["layer_norm_eps"])
            vits.append(VisionTransformer(**shape, num_classes=0, norm_layer=norm))
        return Several(vits)

    def parameters(self) -> dict[str, Tensor]:
        """All of the method's under the names of the case, whose selectors are vectors of their own."""
        own, found = dict(self.model.named_parameters()), {}
        selector = own.pop("selector")
        for source, blocks in enumerate(selector):
            found |= {f"method/selector/{source}/{block}": s for block, s in enumerate(blocks)}
        for name, weight in own.items():
            if name.startswith("backbone."):
                source, _, rest = name.removeprefix("backbone.networks.").partition(".")
                found[f"source{source}/{rest}"] = weight
            elif name.startswith("fusion.") and not name.startswith("fusion.fusion_weight"):
                found[f"method/{name.replace('.', '/')}"] = weight
            else:
                found[{"fusion.fusion_weight": "method/fusion/fusion_weight"}.get(name, name.replace(".", "/"))] = (
                    weight
                )
        return found

    def images(self, array: str) -> Tensor:
        """Recorded inputs; those of one channel are repeated."""
        x = self.case[array]
        assert x.shape[1] == self.config["in_chans"], f"{self.case.name}: {array} has {x.shape[1]} channels"
        return x.expand(-1, 3, -1, -1).contiguous()

    def at(self, array: str) -> str:
        return f"step{self.step}/{array}"

    def run(self) -> None:
        case, config, tasks = self.case, self.config, self.config["tasks"]
        count = case.count("step{}/x")
        x, y = [self.images(f"step{k}/x") for k in range(count)], [case[f"step{k}/y"] for k in range(count)]
        each = config["steps_per_task"]
        assert count == each * len(tasks) and {len(part) for part in x} == {config["batch_size"]}
        for k, labels in enumerate(y):
            case.equal(f"step{k}/task", k // each)
            assert set(labels.tolist()) <= set(tasks[k // each])
        stream = Recorded(
            consecutive([len(part) for part in x], [each] * len(tasks)),
            config["num_classes"],
            known=config["num_classes"],
            classes=[list(own) for own in tasks],
        )
        self.watch()
        train(
            self.model,
            stream,
            torch.cat(x),
            torch.cat(y),
            evaluator=lambda *_: Scores(0.0, torch.zeros(config["num_classes"])),
        )
        assert self.step == count - 1
        mine, final = self.parameters(), self.tolerances["final_abs"]
        for name in case.below("final/").keys() - {"buffer_logits"}:
            case.close(f"final/{name}", mine[name], final)
        _, _, stored = self.model.buffer.columns
        case.close("final/buffer_logits", stored[: len(self.model.buffer)], self.tolerances["logits_abs"])
        self.evaluate()

    def watch(self) -> None:
        """Feeds the recorded draws, and looks at every step."""
        case, model, buffer = self.case, self.model, self.model.buffer
        observe, end_batch, switch = model.observe, model.end_batch, model.switch
        asked: list[str] = []

        def observed(batch) -> Tensor:
            self.step += 1
            loss = observe(batch)
            case.close(self.at("loss"), loss, {"rtol": self.tolerances["loss_rel"]})
            case.close(self.at("logits"), model.latest, self.tolerances["logits_abs"])
            recorded = [name for name in ("buffer_draw", "gumbel_u") if self.at(name) in case]
            assert sorted(asked) == recorded, f"{case.name}: step {self.step} draws {asked}, recorded are {recorded}"
            asked.clear()
            return loss

        def draw_positions(wanted: int) -> Tensor:
            asked.append("buffer_draw")
            drawn = case[self.at("buffer_draw")]
            assert len(drawn) == wanted == len(set(drawn.tolist())) and int(drawn.max()) < len(buffer)
            return drawn

        def draw() -> Tensor:
            asked.append("gumbel_u")
            return case[self.at("gumbel_u")].to(DEVICE)

        def switched(u: Tensor) -> Tensor:
            w = switch(u)
            case.close(self.at("select_prob"), w, self.tolerances["logits_abs"])
            return w

        def forward(module, given, logits) -> None:  # of the live network: on images of the memory, or the batch
            if asked and asked[-1] == "buffer_draw":
                case.close(self.at("buffer_logits_now"), logits, self.tolerances["logits_abs"])

        def draw_targets(offered: int) -> Tensor:
            """Recorded slots; rows that find a free place are not asked."""
            written, rows = case[self.at("buffer_write")], torch.arange(offered)
            assert len(written) == offered and int(written.max()) < buffer.size
            free = rows + buffer.seen < buffer.size
            assert (written == rows + buffer.seen)[free].all(), f"{case.name}: {self.at('buffer_write')}"
            return torch.where(written < 0, buffer.size, written)

        def ended(batch) -> None:
            before = [column.clone() for column in buffer.columns]
            latest, written = model.latest, case[self.at("buffer_write")]
            end_batch(batch)
            self.check_memory(before, written, batch.raw, latest)

        model.observe, model.end_batch, model.switch, model.draw = observed, ended, switched, draw
        buffer.draw_positions, buffer.draw_targets = draw_positions, draw_targets
        model.register_forward_hook(forward)

    def check_memory(self, before: list[Tensor], written: Tensor, raw: Tensor, logits: Tensor) -> None:
        """Of several images with one slot the last stays."""
        buffer: ReservoirBuffer = self.model.buffer
        images, _, stored = buffer.columns
        latest = {slot: row for row, slot in enumerate(written.tolist()) if slot >= 0}
        for slot in range(len(buffer)):
            row = latest.get(slot)
            expected = (before[0][slot], before[2][slot]) if row is None else (raw[row], logits[row])
            assert torch.equal(images[slot], expected[0]) and torch.equal(stored[slot], expected[1])

    @torch.no_grad()
    def evaluate(self) -> None:
        case, model, tolerance = self.case, self.model.eval(), self.tolerances["eval_abs"]
        x = self.images("eval/x").to(DEVICE)
        case.close("eval/logits", model(x), tolerance)
        for source, (blocks, tokens) in enumerate(zip(model.last(), model.trunks(x))):
            for block, after in enumerate(each_block(blocks, tokens)):
                case.close(f"eval/feature/{source}/{block}", after, tolerance)
        recorded = case.below("eval/feature/").keys()
        assert len(recorded) == len(model.last()) * self.config["trainable_blocks"]
