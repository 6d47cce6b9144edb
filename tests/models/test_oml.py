"""OML: what a meta step changes, what its stage leaves, online steps whatever the batches; SR-NN's penalty."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

import backbone as backbones
import main
from backbone.products import stages_of
from models.oml import Oml, OmlArgs
from models.oml_meta import OmlMeta, OmlMetaArgs
from models.srnn import SrnnArgs
from tests.tiny import assert_same_weights, build, weights_of
from utils import plan as plans
from utils.contracts import Batch, Session
from utils.errors import UsageError
from utils.files.manifest import write_manifest

META = {"backbone": "conv2-4", "batch_size": 1, "eval_period": -1, "init_seed": 1}
STEPS = {"steps": 4, "tasks": 2, "update_step": 3}


def meta(**own):
    return build("oml_meta", STEPS | own, **META)


# Stage 1


def test_only_rows_of_the_trajectory_are_redrawn_before_the_run():
    model = meta().model
    before = model.pln[-1].weight.detach().clone()
    model.reset_rows(torch.tensor([7, 9, 7]))
    changed = (model.pln[-1].weight != before).any(dim=1)
    assert changed.nonzero().flatten().tolist() == [7, 9]
    rows = model.draw_rows(500)
    assert rows.std().item() == pytest.approx((2 / rows.shape[1]) ** 0.5, rel=0.02)


@pytest.mark.parametrize("own", [{}, {"pln_layers": 2, "pln_width": 8}, {"query": "paper"}])
def test_a_meta_step_moves_everything_and_the_query_is_learnt(own):
    run = meta(**own | {"steps": 60, "meta_lr": 0.003, "update_lr": 0.1})
    before, losses = weights_of(run.model), []
    observe = run.model.observe
    run.model.observe = lambda batch: losses.append(observe(batch)) or losses[-1]
    run.trainer.train()
    after = weights_of(run.model)
    assert all((after[name] != before[name]).any() for name in before)
    assert torch.stack(losses[-15:]).median() < 0.8 * torch.stack(losses[:15]).median()


def test_a_small_network_without_weights_begins_as_released():
    run, args = plans.make({"model": "oml_meta", "dataset": "glyphs", "backbone": "mlp-16"}).run, OmlMetaArgs()
    OmlMeta.prepare(run, args)
    assert args.drawn
    torch.manual_seed(0)
    network = backbones.build("mlp-64", (3, 32, 32))
    OmlMeta(network, meta().info, replace(args, tasks=2))
    assert network.layers[0].weight.std().item() == pytest.approx((2 / 3072) ** 0.5, rel=0.02)
    OmlMeta.prepare(replace(run, backbone_path="file"), args)
    assert not args.drawn


def test_the_middle_of_a_thousand_steps_is_a_place_to_go_on_from():
    whole, resumed = meta(), meta()
    state, step = {}, whole.trainer._step

    def kept(draw):
        if whole.trainer.batch == 2:
            state.update(copy.deepcopy(whole.trainer.state_dict()))
        return step(draw)

    whole.trainer._step = kept
    whole.trainer.train()
    assert state["position"] == [0, 0, 2]
    resumed.trainer.load_state_dict(state)
    resumed.trainer.train()
    assert_same_weights(weights_of(whole.model), weights_of(resumed.model))


def test_the_products_fit_the_network_and_the_head(tmp_path):
    run = meta(save_to=str(tmp_path))
    run.trainer.train()
    network = backbones.build("conv2-4", (3, 32, 32))
    backbones.load_weights(network, tmp_path / OmlMeta.product(run.model.args))
    assert_same_weights(weights_of(network), weights_of(run.model.backbone))
    head = tmp_path / "pln.safetensors"
    own = {"rln": str(tmp_path / "rln.safetensors"), "reset": False, "pln": str(head), "outputs": run.info.num_classes}
    model = build("oml", own, backbone="conv2-4").model
    assert_same_weights(weights_of(model.pln), weights_of(run.model.pln))
    assert_same_weights(weights_of(model.backbone), weights_of(run.model.backbone))
    with pytest.raises(UsageError, match="has shape"):
        build("oml", own, backbone="conv2-5")
    for given in ({"pln_layers": 2}, {"outputs": run.info.num_classes + 1}):
        with pytest.raises(UsageError, match="--no-reset: .*has shape.*; --outputs, .* or --reset"):
            build("oml", own | given, backbone="conv2-4")
    with pytest.raises(UsageError, match="--no-reset: the representation has no file, so there is no head beside it"):
        build("oml", own | {"rln": "none", "pln": None}, backbone="conv2-4")
    write_manifest(tmp_path)
    model = build("oml", own | {"rln": "none"}, backbone="conv2-4").model  # of a --backbone_path
    assert_same_weights(weights_of(model.pln), weights_of(run.model.pln))
    head.write_bytes((tmp_path / "rln.safetensors").read_bytes())
    with pytest.raises(UsageError, match="pln.safetensors: not as manifest.json says, so head and representation may"):
        build("oml", own, backbone="conv2-4")
    head.unlink()
    with pytest.raises(UsageError, match="--no-reset: there is no .*pln.safetensors; --reset draws the head anew"):
        build("oml", own, backbone="conv2-4")


def test_one_thing_says_where_the_representation_comes_from(tmp_path):
    plan = plans.make(
        {"model": "oml", "dataset": "seq-digits", "rln": str(tmp_path / "a"), "backbone_path": str(tmp_path / "b")}
    )
    with pytest.raises(UsageError, match="--rln .*a: would replace the weights of --backbone_path .*b; give one of"):
        plan.method.prepare(plan.run, plan.method_args)


# Numbers: samples of a slot and x, of functions that a straight line fits


def numbers(model: type, args, num_tasks: int = 3):
    torch.manual_seed(0)
    network = backbones.build("mlp-16-16", (6,))
    info = replace(meta().info, num_targets=1, num_slots=5, image_size=None, num_tasks=num_tasks, num_classes=num_tasks)
    made = model(network, info, args)
    made.optimizer = made.configure_optimizer()
    return made


def test_scratch_begins_as_the_stage_does():
    norms = {}
    for drawn in (False, True):
        layer = numbers(Oml, OmlArgs(rln="none", drawn=drawn)).backbone
        norms[drawn] = next(p for p in layer.parameters() if p.ndim == 2).std().item()
    assert norms[True] > 1.3 * norms[False]  # sqrt(2 / 6) and sqrt(2 / 22) of 96 numbers
    network = backbones.build("mlp-64", (3, 32, 32))
    Oml(network, meta().info, OmlArgs(rln="none", drawn=True))
    assert network.layers[0].weight.std().item() == pytest.approx((2 / 3072) ** 0.5, rel=0.02)


def test_functions_get_slots_of_their_own_anew_in_every_meta_step():
    args = OmlMetaArgs(tasks=3, update_step=2, query="minibatch", capacity=5, reset=False)
    model, x = numbers(OmlMeta, args), torch.rand(3 * 2 * 4 + 3 * 4, 6)
    drawn = []
    for _ in range(20):
        filled = model.in_slots(x, 24)
        assert torch.equal(filled[:, -1], x[:, -1]) and filled[:, :-1].sum(dim=1).eq(1).all()
        slots = filled[:, :-1].argmax(dim=1)
        first = slots[:24:8]
        assert len(first.unique()) == 3
        assert torch.equal(slots, torch.cat([first.repeat_interleave(8), first.repeat_interleave(4)]))
        drawn.append(tuple(first.tolist()))
    assert len({*drawn}) > 5 and {slot for each in drawn for slot in each} == set(range(5))
    before = weights_of(model)
    y = 100 * torch.rand(36, 1)
    model.observe(Batch(x, y, x, 0))
    assert all((value != before[name]).any() for name, value in weights_of(model).items() if "pln" in name)


@pytest.mark.parametrize(
    "own, reason",
    [
        ({"query": "split"}, "--query split: .* give minibatch or paper"),
        ({"capacity": 6}, "--capacity 6: samples have 5 entries for the slot"),
        ({"capacity": 5, "tasks": 6}, "--tasks 6: there are 5 slots"),
        ({"capacity": 5, "iid": True}, "--reset: has no effect with --iid"),
    ],
)
def test_numbers_without_slots_are_refused(own, reason):
    with pytest.raises(UsageError, match=reason):
        numbers(OmlMeta, OmlMetaArgs(**{"query": "minibatch"} | own))


def test_numbers_that_are_all_inputs_keep_them():
    info = replace(numbers(OmlMeta, OmlMetaArgs(query="minibatch", capacity=5)).info, num_slots=0)
    with pytest.raises(UsageError, match="no entries for the slot of their function"):
        OmlMeta(backbones.build("mlp-16-16", (6,)), info, OmlMetaArgs(query="minibatch", capacity=5))


def test_the_task_of_numbers_is_part_of_the_input():
    model, x = numbers(Oml, OmlArgs(rln="none", optimizer="sgd", lr=0.05)), torch.zeros(8, 6)
    x[:, -1] = torch.linspace(-1, 1, 8)
    y = [x[:, -1:] * k for k in (1, -1, 2)]
    assert model.needs_task_boundaries and model.is_told and not model.has_fixed_features
    for task in range(3):
        model.begin_task(Session(task, [task], None, 8, lambda size: iter(())))
        for _ in range(100):
            loss = model.observe(Batch(x, y[task], x, 0))
        with torch.no_grad():
            assert F.mse_loss(model.given(x, task), y[task]) == pytest.approx(loss.item(), rel=0.1)
    assert torch.equal(model(x), model.given(x, 2)) and not torch.equal(model(x), model.given(x, 0))
    with pytest.raises(UsageError, match=r"5 entries for it \(num_slots\), and there are 6 tasks"):
        numbers(Oml, OmlArgs(rln="none"), num_tasks=6)
    with pytest.raises(UsageError, match="--outputs 7: counts columns of classes"):
        numbers(Oml, OmlArgs(rln="none", outputs=7))


def test_ordinary_training_tells_functions_by_slot_and_column():
    args = OmlMetaArgs(tasks=2, update_step=1, query="minibatch", capacity=5, reset=False, iid=True, meta_lr=0.01)
    model, x = numbers(OmlMeta, args, num_tasks=7), torch.zeros(7 * 16, 6)
    functions = torch.arange(7).repeat_interleave(16)
    x[:, -1] = torch.rand(len(x)) * 2 - 1
    y = x[:, -1:] * (functions[:, None] - 3)
    assert model.pln[-1].out_features == 2 and [part.tolist() for part in model.told(functions[::16])] == [
        [0, 1, 2, 3, 4, 0, 1],
        [0, 0, 0, 0, 0, 1, 1],
    ]
    for _ in range(300):
        loss = model.observe(Batch(x, y, x, 0, functions=functions))
    assert loss < 0.05  # one column, or one slot, could not give lines of other slopes
    online = numbers(Oml, OmlArgs(rln="none"), num_tasks=5)
    online.backbone.load_state_dict(model.backbone.state_dict())
    online.pln.load_state_dict(model.prediction())
    with torch.no_grad():
        for function in range(5):
            own = functions == function
            assert F.mse_loss(online.given(x[own], function), y[own]) < 0.1


# Online


def test_batches_of_any_size_leave_the_same_weights():
    """Of one stream, to the bit, although the images of a larger batch are augmented together."""
    runs = [build("oml", {"rln": "none"}, backbone="conv2-8", scenario="class-il", batch_size=64)]
    order = torch.cat([runs[0].trainer.stream.rows(task) for task in range(3)])
    for size in (1, 7, 64):
        run = build("oml", {"rln": "none"}, backbone="conv2-8", scenario="class-il", batch_size=size)
        assert torch.equal(torch.cat([run.trainer.stream.rows(task) for task in range(3)]), order)
        run.trainer.train()
        runs.append(run)
    for run in runs[2:]:
        assert_same_weights(weights_of(runs[1].model), weights_of(run.model))
    assert (weights_of(runs[0].model)["pln.0.weight"] != weights_of(runs[1].model)["pln.0.weight"]).any()
    assert_same_weights(runs[0].frozen, {name: weights_of(runs[1].model)[name] for name in runs[0].frozen})


def test_columns_without_a_class_are_learnt_as_wrong_and_never_given():
    run = build("oml", {"rln": "none", "outputs": 40, "lr": 0.01}, backbone="conv2-8", scenario="class-il")
    classes, spare = run.info.num_classes, run.model.pln[-1].bias[run.info.num_classes :]
    assert len(spare) == 40 - classes and not spare.any()
    run.trainer.train()
    assert (spare < 0).all()
    with torch.no_grad():
        assert run.model(torch.rand(2, 3, 32, 32)).shape == (2, classes)
    assert len(build("oml", {"rln": "none", "outputs": 1}, backbone="conv2-8").model.pln[-1].bias) == classes


def test_where_the_representation_comes_from():
    def prepared(**given):
        plan = plans.make({"model": "oml", "dataset": "seq-glyphs", "checkpoint_dir": "products"} | given)
        return plan.method.prepare(plan.run, plan.method_args), plan.method_args.rln

    ((stage,), rln) = prepared()
    assert (stage.model, stage.dataset, stage.options["backbone"]) == ("oml_meta", "glyphs", "conv4-64")
    assert rln == str(stage.output) and stage.output.name == "rln.safetensors"
    assert prepared(pln_layers=2)[0][0].output != stage.output
    assert prepared(rln="none") == ([], "none") == prepared(backbone_path="any.safetensors")
    assert prepared(rln="mine.safetensors") == ([], "mine.safetensors")


def test_which_head_goes_on():
    def named(**given):
        plan = plans.make({"model": "oml", "dataset": "seq-sines"} | given)
        stages = plan.method.prepare(plan.run, plan.method_args)
        return plan.method_args.pln, stages

    assert named(backbone_path="made/any.safetensors") == ("made/pln.safetensors", [])
    assert named(rln="made/any.safetensors") == ("made/pln.safetensors", [])
    assert named(rln="made/any.safetensors", pln="other.safetensors") == ("other.safetensors", [])
    assert named(rln="none") == named(rln="made/any.safetensors", reset=True) == (None, [])
    pln, (stage,) = named()
    assert pln == str(stage.output.with_name("pln.safetensors"))


def test_another_head_makes_another_run(tmp_path, said):
    """Both are complete and begin with the same representation."""
    usual = ["--dataset", "sines", "--model", "oml_meta", "--backbone", "mlp-8", "--steps", "2", "--device", "cpu"]
    for seed in (1, 2):
        made = ["--seed", seed, "--save_to", tmp_path / f"{seed}", "--results", tmp_path / "runs"]
        assert said(*usual, *made)[0] == 0
    words = ["--dataset", "seq-sines", "--model", "oml", "--backbone", "mlp-8", "--n_iter", "1", "--device", "cpu"]
    words += ["--rln", tmp_path / "1" / "rln.safetensors", "--results", tmp_path / "online", "--resume", "auto"]
    folders = []
    for head in ([], ["--pln", tmp_path / "2" / "pln.safetensors"], []):
        code, lines, errors = said(*words, *head)
        assert code == 0
        folders.append(lines[-1])
    assert folders[0] == folders[2] != folders[1] and "complete; not repeated" in "".join(errors)
    code, lines, _ = said("report", tmp_path / "online")
    assert code == 0 and sum(line.startswith("| oml") for line in lines) == 2
    assert said(*words, "--reset", "--pln", "any")[2][-1].endswith("only with --no-reset")


def test_a_head_that_cannot_fit_is_refused_before_its_stage(tmp_path, said):
    for own, reason in (
        (["--dataset", "seq-omniglot"], "the head of stage 1 on omniglot has 964 columns, and this run's has 1000"),
        (["--dataset", "seq-characters", "--outputs", 2000], "stage 1 on glyphs has 1000 columns, and this run's has"),
    ):
        code, _, errors = said("--model", "oml", "--no-reset", "--checkpoint_dir", tmp_path, *own, "--dry_run")
        assert code == 2 and reason in errors[-1] and errors[-1].endswith("or --reset")


@pytest.mark.parametrize("where", [{"rln": "none"}, {"rln": "a"}, {"backbone_path": "a"}])
@pytest.mark.parametrize("idle", [{"pretrain": "glyphs-last"}, {"pretrain_dir": "somewhere"}])
def test_pretraining_data_that_nobody_reads_are_refused(where, idle):
    plan = plans.make({"model": "oml", "dataset": "seq-glyphs"} | where | idle)
    with pytest.raises(UsageError, match=f"--{[*idle][0]} .*: has no effect, as other options say where everything"):
        stages_of(plan)


def test_a_head_that_the_stage_will_make_is_not_missed(tmp_path, capsys):
    words = ["--model", "oml", "--dataset", "seq-characters", "--no-reset", "--checkpoint_dir", str(tmp_path)]
    assert main.main([*words, "--results", str(tmp_path), "--dry_run"]) == 0
    assert "oml_meta" in capsys.readouterr().out


def test_products_on_the_command_line(tmp_path, capsys, few_digits, in_process):
    places = ["--results", str(tmp_path / "runs"), "--checkpoint_dir", str(tmp_path / "made"), "--device", "cpu"]
    made = ["--model", "oml_meta", "--backbone", "conv4-4", "--steps", "3", "--tasks", "2", *few_digits]
    assert main.main([*made, *places, "--save_to", str(tmp_path / "rln")]) == 0
    online = ["--model", "oml", *few_digits, *places]
    file = str(tmp_path / "rln" / "rln.safetensors")
    assert main.main([*online, "--backbone", "conv4-4", "--backbone_path", file, "--dry_run"]) == 0
    capsys.readouterr()
    assert main.main([*online, "--backbone", "conv4-4", "--rln", file, "--dry_run"]) == 0
    assert f"untrained\n            --rln {file}\n" in capsys.readouterr().out
    for option in ("--backbone_path", "--rln"):
        assert main.main([*online, "--backbone", "conv4-5", option, file]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "has shape [4], the network needs [5]" in error


@pytest.mark.parametrize(
    "words, said",
    [
        (["--model", "oml", "--dataset", "seq-digits", "--rln", ""], "--rln '': no such file; 'none' takes"),
        (["--model", "oml", "--dataset", "seq-digits", "--rln", "tests"], "--rln tests: no such file"),
        (
            ["--model", "oml_meta", "--dataset", "seq-sines"],
            "oml_meta runs on trajectories; task-il is that of seq-sines",
        ),
        (
            ["--model", "oml_meta", "--dataset", "glyphs", "--iid"],
            "--iid: is for numbers to predict; on images use --mo",
        ),
        (["--model", "oml_meta", "--dataset", "glyphs", "--capacity", "9"], "--capacity 9: is for numbers to predict"),
        (["--model", "oml_meta", "--dataset", "sines", "--iid", "--update_lr", "1"], "--update_lr: has no effect with"),
        (
            ["--model", "oml", "--dataset", "regression-1d", "--rln", "none"],
            "samples have 0 entries for it (num_slots), and there are 3",
        ),
        (
            ["--model", "oml", "--dataset", "perm-digits"],
            "oml needs a run of oml_meta on glyphs, whose samples are 1x32x32, and those of perm-digits are 1x8x8",
        ),
        (
            ["--model", "oml", "--dataset", "seq-sines", "--classes", "20"],
            "its tasks are one function each, and 10 tasks have 20; as many --n_tasks as --classes",
        ),
        (
            ["--model", "oml", "--dataset", "seq-sines", "--scenario", "si-blurry", "--rln", "none"],
            "its tasks are one function each",
        ),
        (
            ["--model", "srnn", "--dataset", "glyphs", "--sparsity", "mean", "--beta", "0.5"],
            "--beta: has no effect with",
        ),
        (
            ["--model", "oml_meta", "--dataset", "glyphs", "--save_to", "made", "--seeds", "1", "2"],
            "--save_to made: is for what one run makes; --seeds asks for 2 runs",
        ),
        (
            ["--model", "oml", "--dataset", "seq-sines", "--rln", "none", "--eval_mask", "none"],
            "--eval_mask none: masks classes, and seq-sines has numbers to predict",
        ),
        (
            ["--model", "oml", "--dataset", "seq-glyphs", "--rln", "none", "--outputs", "1000000"],
            "a head of 1,000,000 outputs on 1,024 features has 1,025,000,000 weights",
        ),
        (
            ["--model", "oml_meta", "--dataset", "glyphs", "--pln_layers", "2", "--pln_width", "999999999"],
            "a head of 1,000 outputs and 999,999,999 units (--pln_width) on 1,024 features",
        ),
        (
            ["--model", "oml_meta", "--dataset", "glyphs", "--eval_mask", "none"],
            "--eval_mask none: oml_meta is not evaluated",
        ),
        (["representation", "a", "--backbone", "mlp-4", "--dataset", "seq-sines"], "--dataset seq-sines: features of"),
    ],
)
def test_what_is_refused_in_a_line(words, said, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("backbone.heads.free_memory", lambda: 2**34)
    places = [] if words[0] == "representation" else ["--device", "cpu", "--results", str(tmp_path)]
    assert main.main([*words, *places]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("error: ") == 1 and "Traceback" not in error


# SR-NN


def test_penalty_of_set_kl():
    model = build("srnn", {"beta": 0.2}, backbone="mlp-4").model
    z = torch.tensor([[0.0, 0.1, 0.4, 1.0], [0.0, 0.1, 0.8, 3.0]])
    ratios = [0.2 / (active + 1e-4) for active in (0.6, 2.0)]  # the other two are not above beta
    expected = sum(ratio - torch.tensor(ratio).log() - 1 for ratio in ratios) / 4
    torch.testing.assert_close(model.penalty(z), expected)
    model.args = SrnnArgs(sparsity="mean")
    torch.testing.assert_close(model.penalty(z), z.mean())


def test_the_penalty_makes_features_rarer():
    def active(**own):
        run = build("srnn", {"lr": 0.003, **own}, backbone="mlp-32", n_epochs=4, eval_period=-1)
        run.trainer.train()
        return run.model.backbone(torch.rand(64, 3, 32, 32)).mean().item()

    assert active(beta=0.01) < 0.8 * active(beta=100.0)
