"""MISA: what FAM does to weights, what stage one trains and leaves, and the session mask."""

from __future__ import annotations

import io

import pytest
import torch
from torch import Tensor, nn

from models.misa import Misa
from tests.tiny import Patches, assert_same_weights, build, rows_of, weights_of
from utils import plan as plans
from utils.contracts import Batch
from utils.files.tensors import read_tensors
from utils.optim import FAM
from utils.training.loop import Listener

# FAM


def three_weights() -> list[nn.Parameter]:
    """Two that train and one that is frozen."""
    torch.manual_seed(0)
    weights = [nn.Parameter(torch.randn(4, 3)), nn.Parameter(torch.randn(5)), nn.Parameter(torch.randn(2))]
    weights[2].requires_grad_(False)
    return weights


def copies(weights) -> list[Tensor]:
    return [w.detach().clone() for w in weights]


def with_gradients(weights, seed: int) -> list[Tensor]:
    torch.manual_seed(seed)
    for w in weights[:2]:
        w.grad = torch.randn_like(w)
    return [w.grad.clone() for w in weights[:2]]


@pytest.mark.parametrize("adaptive", [False, True])
def test_first_step_goes_up_by_rho_along_the_joint_gradient(adaptive):
    weights = three_weights()
    before = copies(weights)
    gradients = with_gradients(weights, seed=1)
    norm = FAM(torch.optim.Adam(weights), rho=0.25, adaptive=adaptive).first_step()
    scales = [w.abs() if adaptive else torch.ones_like(w) for w in before[:2]]
    joint = torch.cat([(a * g).flatten() for a, g in zip(scales, gradients)])
    torch.testing.assert_close(norm, joint.norm())
    for w, w0, a, g in zip(weights, before, scales, gradients):
        torch.testing.assert_close(w.detach(), w0 + 0.25 * a**2 * g / joint.norm())
        assert w.grad is None
    assert torch.equal(weights[2], before[2])


def test_second_step_is_the_base_step_from_where_the_first_began():
    ours, plain = three_weights(), three_weights()
    fam, adam = FAM(torch.optim.Adam(ours, lr=0.01), rho=5.0), torch.optim.Adam(plain, lr=0.01)
    for update in range(3):
        with_gradients(ours, seed=10 + update)
        fam.first_step()
        assert not torch.equal(ours[0], plain[0])
        for weights in (ours, plain):
            with_gradients(weights, seed=20 + update)
        fam.second_step()
        adam.step()
        assert all(torch.equal(w, expected) for w, expected in zip(ours, plain))


def test_weight_without_a_gradient_in_the_second_pass_is_put_back_too():
    weights = three_weights()
    before = copies(weights)
    fam = FAM(torch.optim.Adam(weights, lr=0.01))
    with_gradients(weights, seed=1)
    fam.first_step()
    assert not torch.equal(weights[1], before[1])
    weights[0].grad = torch.ones_like(weights[0])
    fam.second_step()
    assert torch.equal(weights[1], before[1]) and not torch.equal(weights[0], before[0])
    weights[1].data += 1
    fam.second_step()
    assert torch.equal(weights[1], before[1] + 1)  # nothing is remembered any more


# Stage one


TINY = {"num_sessions": 2, "updates": 2, "samples": 4, "len_g_prompt": 3, "len_e_prompt": 2, "pos_e_prompt": (2, 4)}


def test_session_batch_waits_for_its_forgetting_batch():
    run = build("misa_isa", TINY, n_epochs=1)
    model, calls = run.model, []
    observe, loss = model.observe, model.loss

    def observed(batch):
        before = weights_of(model)
        result = observe(batch)
        moved = any(not torch.equal(w, before[name]) for name, w in model.named_parameters())
        calls.append((batch, result, moved, losses.copy()))
        losses.clear()
        return result

    def lost(batch):
        losses.append((batch, weights_of(model.head)))
        return loss(batch)

    losses: list = []
    model.observe, model.loss = observed, lost
    run.trainer.train()
    assert len(calls) == 2 * run.info.num_updates == 2 * 2 * (2 + 2)  # sessions of 5 classes: 16 and 4 images
    for (session, nothing, still, none), (forgetting, given, moved, both) in zip(calls[::2], calls[1::2]):
        assert nothing is None and not still and none == []
        assert given.isfinite() and moved
        (first, before), (second, perturbed) = both
        assert first is forgetting
        assert torch.equal(second.x, session.x) and torch.equal(second.y, session.y)
        assert second.seen == forgetting.seen >= session.seen  # classes that must not be forgotten compete, too
        assert not torch.equal(before["weight"], perturbed["weight"])


@pytest.mark.parametrize("adaptive", [False, True])
def test_options_set_the_length_of_the_first_step(adaptive):
    model = build("misa_isa", TINY | {"rho": 0.7, "adaptive": adaptive}).model.train()
    passes, loss = [], model.loss
    model.loss = lambda batch: (passes.append(copies(model.parameters())), loss(batch))[1]
    for seen in (2, 4):
        raw = torch.zeros(3, 3, 32, 32, dtype=torch.uint8)
        model.observe(Batch(torch.randn(3, 3, 32, 32), torch.tensor([0, 1, seen - 1]), raw, seen))
    moved = [(after - w) / (w.abs() if adaptive else 1) for w, after in zip(*passes)]
    length = torch.cat([part.flatten() for part in moved]).nan_to_num().norm()  # 0 / 0: a weight that is zero
    assert length.item() == pytest.approx(0.7, rel=1e-3)


@pytest.mark.parametrize("g_proj, e_proj", [(False, True), (True, False), (True, True), (False, False)])
def test_stage_leaves_projected_prompts_that_misa_starts_from(tmp_path, g_proj, e_proj):
    run = build("misa_isa", TINY | {"g_proj": g_proj, "e_proj": e_proj, "save_to": str(tmp_path)}, n_epochs=1)
    run.trainer.train()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e_prompt.pt", "g_prompt.pt"]
    shape = {name: TINY[name] for name in ("len_g_prompt", "len_e_prompt", "pos_e_prompt")}
    model = build("misa", shape | {"load_pt": str(tmp_path), "e_pool": 12}).model
    tables = dict(zip(("g_prompt", "e_prompt"), run.model.tables()))
    for name, projected in (("g_prompt", g_proj), ("e_prompt", e_proj)):
        saved, raw = read_tensors(tmp_path / f"{name}.pt"), getattr(run.model, name).prompts
        assert type(saved) is Tensor and saved.dtype == torch.float32 and not saved.requires_grad
        assert torch.equal(saved, tables[name])
        assert torch.equal(saved, raw) != projected
        assert torch.equal(getattr(model, name).prompts[: len(saved)], saved)
    assert torch.equal(model.e_prompt.prompts[10:], tables["e_prompt"][:2])  # a larger pool repeats the file


def test_a_run_without_a_folder_leaves_no_prompts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    build("misa_isa", TINY, n_epochs=1).trainer.train()
    assert list(tmp_path.iterdir()) == []


def stages_of(tmp_path, **given):
    usual = {"backbone_path": "random", "checkpoint_dir": str(tmp_path)}
    plan = plans.make({"model": "misa", "dataset": "seq-digits"} | usual | given).with_seed(given.get("seed", 1))
    stages = plan.method.prepare(plan.run, plan.method_args)
    return stages, plan.method_args.load_pt


def test_misa_asks_for_prompts_of_its_own_shape(tmp_path):
    (usual,), folder = stages_of(tmp_path)
    assert (usual.model, usual.dataset, usual.output.name) == ("misa_isa", "glyphs", "e_prompt.pt")
    assert folder == str(usual.output.parent) == usual.options["save_to"]
    for same in ({"seed": 2}, {"e_pool": 30}, {"n_tasks": 3}, {"lr": 0.1}, {"train_mask": "seen"}):
        assert stages_of(tmp_path, **same)[0] == [usual], same
    others = [
        {"len_g_prompt": 5}, {"len_e_prompt": 5}, {"pos_g_prompt": (0,)}, {"pos_e_prompt": (2, 3)},
        {"prompt_func": "prefix_tuning"}, {"pretrain": "seq-digits"},
    ]  # fmt: skip
    outputs = {usual.output}
    for other in others:
        ((stage,), _) = stages_of(tmp_path, **other)
        assert other.items() <= stage.options.items() or stage.dataset == other["pretrain"]
        outputs.add(stage.output)
    assert len(outputs) == 1 + len(others)


def test_pretraining_data_follow_the_network(tmp_path):
    ((stage,), _) = stages_of(tmp_path, backbone="sup21k", pretrain_dir="elsewhere")
    assert (stage.dataset, stage.options["data_dir"]) == ("imagenet", "elsewhere")


@pytest.mark.parametrize("given", ["none", "some/folder"])
def test_misa_asks_for_nothing_when_told_where_prompts_come_from(tmp_path, given):
    assert stages_of(tmp_path, load_pt=given) == ([], given)


def test_random_prompts_are_those_of_the_seed():
    first, again = (build("misa", {"load_pt": value}).model for value in ("none", None))
    assert_same_weights(weights_of(first), weights_of(again))


# The session mask


class Masks(Listener):
    """Which classes competed in each update, and which should have."""

    def __init__(self, model: Misa):
        self.competed, self.expected = [], []
        self.met: set[int] = set()
        begin, masked = model.begin_task, model.masked

        def begun(session):
            self.met = set()
            begin(session)

        def watched(logits, batch):
            out = masked(logits, batch)
            self.met |= set(batch.y.tolist())
            self.expected.append(set(self.met))
            self.competed.append(set(torch.where(out[0].isfinite())[0].tolist()))
            return out

        model.begin_task, model.masked = begun, watched


def test_session_mask_opens_the_classes_met_since_the_task_began():
    run = build("misa", {"train_mask": "session"}, batch_size=4, n_epochs=2)
    masks = Masks(run.model)
    run.trainer.train()
    assert masks.competed == masks.expected
    sizes = [len(classes) for classes in masks.competed]
    assert any(later < earlier for earlier, later in zip(sizes, sizes[1:]))  # a task begins anew
    assert max(sizes) > 4  # and holds more than one batch can


def test_session_mask_asks_for_task_borders(products):
    assert build("misa", {"train_mask": "session"}).model.needs_task_boundaries
    assert build("mepo", products | {"train_mask": "session"}).model.needs_task_boundaries
    assert not build("misa", {"train_mask": "seen"}).model.needs_task_boundaries


def test_session_mask_survives_a_stop_in_mid_task():
    class Stop(Listener):
        state = None

        def progress(self, trainer):
            if (trainer.task, trainer.batch) == (1, 2):
                file = io.BytesIO()
                torch.save(trainer.state_dict(), file)
                self.state = file.getvalue()

    def start(listener=None):
        return build("misa", {"train_mask": "session"}, listener=listener, scenario="class-il", batch_size=8)

    whole = start(Stop())
    whole.trainer.train()
    resumed = start()
    resumed.trainer.load_state_dict(torch.load(io.BytesIO(whole.trainer.listeners[0].state), weights_only=True))
    assert 0 < resumed.model.met.sum() < Patches.num_classes
    resumed.trainer.train()
    assert rows_of(resumed.trainer) == rows_of(whole.trainer)
    assert_same_weights(weights_of(resumed.model), weights_of(whole.model))
