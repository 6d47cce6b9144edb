"""Laws of the streams: what is seen how often, in which task, and that every draw can be repeated."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.miniatures import answer
from utils.data.listing import read_class_order
from utils.errors import UsageError
from utils.streams.adaptation import Adaptation
from utils.streams.base import Split
from utils.streams.class_il import ClassIncremental
from utils.streams.episodes import Episodes
from utils.streams.shuffled import Shuffled
from utils.streams.si_blurry import SiBlurry


def labels_of(num_classes: int, num_images: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(num_classes, (num_images,), generator=torch.Generator().manual_seed(seed))


def arrived(stream, epoch: int = 0) -> list[list[int]]:
    """Indices per task, in order, as the batches bring them."""
    batches = [stream.batches(task, epoch) for task in range(stream.num_tasks)]
    return [[i for draw in task for i in draw.indices.tolist()] for task in batches]


def tasks_of_class(stream, targets, label: int) -> set[int]:
    return {t for t, indices in enumerate(arrived(stream)) if (targets[indices] == label).any()}


# Si-Blurry


SIZES = {"num_classes": st.integers(1, 30), "num_images": st.integers(0, 300), "tasks": st.integers(1, 8)}


@settings(max_examples=150, deadline=None)
@given(**SIZES, n=st.integers(0, 100), m=st.integers(0, 100), seed=st.integers(0, 99), batch=st.integers(1, 40))
def test_varying_stream_brings_every_image_once(num_classes, num_images, tasks, n, m, seed, batch):
    targets = labels_of(num_classes, num_images)
    stream = SiBlurry(targets, num_classes, tasks, n, m, True, seed, batch)
    order = arrived(stream)
    assert len(order) == tasks
    assert sorted(sum(order, [])) == list(range(num_images))
    assert stream.num_images() == num_images
    owned = [label for task in range(tasks) for label in stream.task_classes(task)]
    assert sorted(owned) == list(range(num_classes))
    num_disjoint = num_classes * n // 100 // tasks * tasks
    assert sum(map(len, stream.disjoint)) == num_disjoint


@settings(max_examples=100, deadline=None)
@given(**SIZES, n=st.integers(0, 100), m=st.integers(0, 100), seed=st.integers(0, 99))
def test_images_of_disjoint_classes_stay_in_their_task(num_classes, num_images, tasks, n, m, seed):
    targets = labels_of(num_classes, num_images)
    stream = SiBlurry(targets, num_classes, tasks, n, m, True, seed)
    for task, indices in enumerate(arrived(stream)):
        met = set(targets[indices].tolist())
        elsewhere = {label for t, labels in enumerate(stream.disjoint) if t != task for label in labels}
        assert not met & elsewhere
        if m == 0:
            assert met <= set(stream.task_classes(task))


@settings(max_examples=100, deadline=None)
@given(
    per_task=st.integers(1, 5),
    tasks=st.integers(1, 6),
    num_images=st.integers(0, 300),
    n=st.integers(0, 100),
    m=st.integers(0, 100),
    seed=st.integers(0, 99),
)
def test_fixed_stream_loses_only_the_remainder_of_the_pool(per_task, tasks, num_images, n, m, seed):
    num_classes = per_task * tasks
    targets = labels_of(num_classes, num_images)
    stream = SiBlurry(targets, num_classes, tasks, n, m, False, seed)
    order = sum(arrived(stream), [])
    assert len(set(order)) == len(order)
    blurry_images = [sum((targets == label).sum().item() for label in labels) for labels in stream.blurry]
    pool = sum(count * m // 100 for count in blurry_images)
    assert num_images - len(order) == pool % tasks
    assert {len(labels) for labels in stream.disjoint} == {num_classes * n // 100 // tasks}
    assert len({len(labels) for labels in stream.blurry}) == 1


@settings(max_examples=60, deadline=None)
@given(**SIZES, batch=st.integers(1, 40), epochs=st.integers(1, 3), seed=st.integers(0, 99))
def test_batches_fill_up_within_a_task_and_never_span_two(num_classes, num_images, tasks, batch, epochs, seed):
    targets = labels_of(num_classes, num_images)
    stream = SiBlurry(targets, num_classes, tasks, 50, 10, True, seed, batch, epochs)
    for task, indices in enumerate(stream.tasks):
        sizes = [len(draw.indices) for draw in stream.batches(task, 0)]
        assert sizes == [batch] * (len(indices) // batch) + [len(indices) % batch] * (len(indices) % batch > 0)
        assert torch.equal(torch.tensor(arrived(stream)[task], dtype=torch.int64), indices)
    assert arrived(stream, epoch=0) == arrived(stream, epoch=epochs - 1)
    assert stream.num_batches() == epochs * sum(len(stream.batches(task, 0)) for task in range(tasks))


def test_the_seed_alone_decides_the_order():
    targets = labels_of(20, 500)
    prints = [SiBlurry(targets, 20, seed=seed).sha256() for seed in (1, 2, 3, 4, 5)]
    torch.manual_seed(123)  # the global generator has no part in it
    assert [SiBlurry(targets, 20, seed=seed).sha256() for seed in (1, 2, 3, 4, 5)] == prints
    assert len(set(prints)) == 5


def test_fingerprint_knows_where_the_tasks_are_cut():
    targets = torch.zeros(10, dtype=torch.int64)
    stream = SiBlurry(targets, 1, 2, n=0, m=0)
    before = stream.sha256()
    whole = torch.cat(stream.tasks)
    stream.tasks = [whole[:3], whole[3:]]
    assert stream.sha256() != before


def test_no_disjoint_class():
    stream = SiBlurry(labels_of(10, 200), 10, n=0, m=10)
    assert stream.disjoint == [[]] * 5 and sum(map(len, stream.blurry)) == 10


def test_only_disjoint_classes():
    targets = labels_of(10, 200)
    stream = SiBlurry(targets, 10, n=100, m=10)
    assert stream.blurry == [[]] * 5
    assert all(len(tasks_of_class(stream, targets, label)) == 1 for label in range(10))


def test_classes_left_over_by_the_rounding_stay_blurry():
    stream = SiBlurry(labels_of(13, 200), 13, n=100, m=10)
    assert sum(map(len, stream.disjoint)) == 10 and sum(map(len, stream.blurry)) == 3


def test_natural_order():
    targets = labels_of(10, 200)
    stream = SiBlurry(targets, 10, n=101, m=10)
    assert stream.disjoint == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    assert [tasks_of_class(stream, targets, label) for label in range(10)] == [{label // 2} for label in range(10)]


def test_nothing_scatters_at_m_0_and_much_at_m_100():
    targets = labels_of(20, 2000)
    still, scattered = (SiBlurry(targets, 20, n=50, m=m, seed=3) for m in (0, 100))
    blurry = sum(still.blurry, [])
    assert all(len(tasks_of_class(still, targets, label)) == 1 for label in blurry)
    assert sum(len(tasks_of_class(scattered, targets, label)) > 1 for label in blurry) > len(blurry) / 2


def test_one_task_holds_everything():
    stream = SiBlurry(labels_of(10, 100), 10, num_tasks=1)
    assert len(stream.tasks) == 1 and len(stream.tasks[0]) == 100


def test_fewer_classes_than_tasks():
    stream = SiBlurry(labels_of(3, 60), 3, num_tasks=5, n=50, m=0)
    assert sum(map(len, stream.disjoint)) == 0
    assert sum(len(task) for task in stream.tasks) == 60
    assert sum(len(task) == 0 for task in stream.tasks) >= 2
    empty = next(t for t, task in enumerate(stream.tasks) if len(task) == 0)
    assert stream.batches(empty, 0) == []


@pytest.mark.parametrize(
    "wrong, reason",
    [
        ({"num_tasks": 0}, "--n_tasks 0"),
        ({"n": -1}, "--n -1"),
        ({"n": 102}, "--n 102"),
        ({"m": -1}, "--m -1"),
        ({"m": 101}, "--m 101"),
        ({"n": 101, "varying": False}, "--n 101"),
        ({"num_tasks": 3, "varying": False}, "--no-varying needs the 7 blurry classes"),
    ],
)
def test_settings_without_a_stream_are_refused_in_one_line(wrong, reason):
    with pytest.raises(UsageError) as caught:
        SiBlurry(labels_of(10, 100), 10, **wrong)
    assert str(caught.value).startswith(reason) and "\n" not in str(caught.value)


# Class-incremental


@settings(max_examples=60, deadline=None)
@given(num_classes=st.integers(1, 20), data=st.data(), seed=st.integers(0, 99))
def test_class_incremental_split_is_a_partition(num_classes, data, seed):
    tasks = data.draw(st.integers(1, num_classes))
    targets = labels_of(num_classes, 150)
    stream = ClassIncremental(targets, num_classes, tasks, seed, 16, 2)
    sizes = [len(stream.task_classes(task)) for task in range(tasks)]
    assert max(sizes) - min(sizes) <= 1
    assert sorted(sum((stream.task_classes(task) for task in range(tasks)), [])) == list(range(num_classes))
    for epoch in (0, 1):
        order = arrived(stream, epoch)
        assert sorted(sum(order, [])) == list(range(150))
        for task, indices in enumerate(order):
            assert set(targets[indices].tolist()) <= set(stream.task_classes(task))


def test_class_incremental_passes_differ_and_repeat():
    first, again = (ClassIncremental(labels_of(10, 200), 10, 2, 1, 16, 2) for _ in range(2))
    last = arrived(first, 1)
    assert arrived(first, 0) != last
    assert arrived(again, 1) == last  # a pass can be drawn without the one before it
    assert arrived(ClassIncremental(labels_of(10, 200), 10, 2, 2, 16, 2), 1) != last


def test_class_incremental_takes_an_order_of_classes():
    targets, order = labels_of(5, 100), [3, 0, 4, 1, 2]
    for seed in (1, 2):
        stream = ClassIncremental(targets, 5, 2, seed, 16, 1, Split(order=order))
        assert [stream.task_classes(task) for task in (0, 1)] == [[3, 0, 4], [1, 2]]
        assert [set(targets[indices].tolist()) for indices in arrived(stream)] == [{0, 3, 4}, {1, 2}]


def test_the_order_of_classes_is_random_natural_or_that_of_a_file(tmp_path):
    file = tmp_path / "order.txt"
    names = ["a, b", "große Katze", "10", 'say "x"']
    assert read_class_order("random", 4, names) is None
    assert read_class_order("natural", 4, None) == [0, 1, 2, 3]
    for text in ("3\n0\n\n2\n1\n", "\ufeff3\r\n0\r\n2\r\n1", " 3 \n0\n2\n1"):
        file.write_text(text, newline="")
        assert read_class_order(str(file), 4, None) == [3, 0, 2, 1]
    file.write_text('say "x"\na, b\n10\n1\n')  # a name before a number
    assert read_class_order(str(file), 4, names) == [3, 0, 2, 1]


@pytest.mark.parametrize(
    "text, reason",
    [
        ("0\n1\n1\n", "line 3: '1' is there already, in line 2"),
        ("cat\n1\n0", "line 3: '0' is there already, in line 1"),
        ("0\n\nemu\n", "line 3: 'emu' is no class"),
        ("0\n3\n", "line 2: '3' is no class"),
        ("-1\n", "line 1: '-1' is no class"),
        ("1\n0\n", "names 2 of 3 classes; fox is the first that is missing"),
        ("", "names 0 of 3 classes; cat"),
        (b"\xff", "neither random, natural, nor a file"),
        (None, "neither random, natural, nor a file to be read (No such file or directory)"),
    ],
)
def test_files_that_give_no_order_of_classes(text, reason, tmp_path):
    file = tmp_path / "order.txt"
    if text is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    answer(lambda: read_class_order(str(file), 3, ["cat", "dog", "fox"]), file, reason)


@pytest.mark.parametrize("tasks", [0, 11])
def test_class_incremental_needs_a_class_per_task(tasks):
    with pytest.raises(UsageError, match=f"--n_tasks {tasks}: .* has 1 ... 10"):
        ClassIncremental(labels_of(10, 50), 10, tasks, 1, 16, 1)


# Shuffled


def test_shuffled_brings_each_image_once_per_epoch_in_another_order():
    stream = Shuffled(labels_of(5, 103), 5, seed=1, batch_size=10, num_epochs=3)
    passes = [arrived(stream, epoch)[0] for epoch in range(3)]
    assert all(sorted(order) == list(range(103)) for order in passes)
    assert len(set(map(tuple, passes))) == 3
    assert stream.num_batches() == 33 and stream.num_images() == 103
    assert arrived(Shuffled(labels_of(5, 103), 5, 1, 10, 3), 2)[0] == passes[2]
    assert stream.known_classes == 5


def test_shuffled_subset_holds_so_many_images_of_each_class():
    targets = torch.tensor([0] * 3 + [1] * 20 + [2] * 20)
    stream = Shuffled(targets, 3, seed=1, batch_size=8, num_epochs=2, samples=5)
    order = arrived(stream)[0]
    assert len(set(order)) == len(order) == stream.num_images()
    assert torch.bincount(targets[order]).tolist() == [3, 5, 5]
    assert sorted(order) == sorted(arrived(stream, 1)[0])
    assert sorted(order) != sorted(arrived(Shuffled(targets, 3, 2, 8, 2, 5))[0])


# Episodes


# A batch is larger than any pass, so that a draw is a pass.
RULE = dict(meta_epochs=2, group_size=6, num_pseudo_tasks=3, samples=5, repetitions=2, batch_size=99, seed=1)
TARGETS = torch.tensor(sum(([label] * (3 if label == 0 else 11) for label in range(12)), []))


def counts_of(draw) -> dict[int, int]:
    labels, counts = TARGETS[draw.indices].unique(return_counts=True)
    return dict(zip(labels.tolist(), counts.tolist(), strict=True))


def test_groups_partition_the_classes_once_per_epoch():
    stream = Episodes(TARGETS, 12, **RULE)
    assert stream.num_tasks == 2 * 2 * 2  # epochs, groups, repetitions
    groups = [stream.task_classes(task) for task in range(8)]
    assert groups[0] == groups[1] and groups[2] == groups[3]
    for start in (0, 4):
        assert sorted(groups[start] + groups[start + 2]) == list(range(12))
    assert set(groups[0]) not in (set(groups[4]), set(groups[6]))


def test_repetition_is_four_passes_per_pseudo_task_and_one_joint_pass():
    stream = Episodes(TARGETS, 12, **RULE)
    for task in range(stream.num_tasks):
        classes = stream.task_classes(task)
        *training, joint = stream.batches(task, 0)
        assert [draw.augment for draw in training] == [True] * 3 * 4 and not joint.augment
        for first in range(0, 12, 4):
            pseudo_task, own = training[first : first + 4], classes[first // 2 : first // 2 + 2]
            assert counts_of(pseudo_task[0]) == {label: min(5, 3 if label == 0 else 11) for label in own}
            assert len({tuple(sorted(draw.indices.tolist())) for draw in pseudo_task}) == 1  # the same images
            assert len({tuple(draw.indices.tolist()) for draw in pseudo_task}) == 4  # in another order
        assert counts_of(joint) == {label: 3 if label == 0 else 5 for label in classes}
        for draw in (*training, joint):
            assert len(draw.indices.unique()) == len(draw.indices)  # drawn without replacement


def test_batches_of_a_pass():
    stream = Episodes(TARGETS, 12, **RULE | {"batch_size": 4, "group_size": 2, "num_pseudo_tasks": 1})
    sizes = [len(draw.indices) for draw in stream.batches(0, 0)]
    assert sizes == ([4, 4] if 0 in stream.task_classes(0) else [4, 4, 2]) * 5


def test_joint_pass_and_repetitions_draw_anew():
    stream = Episodes(TARGETS, 12, **RULE)

    def drawn(task, augment):
        return {i for draw in stream.batches(task, 0) if draw.augment == augment for i in draw.indices.tolist()}

    assert drawn(0, True) != drawn(0, False)
    assert drawn(0, True) != drawn(1, True)


def test_episode_can_be_drawn_without_those_before_it():
    walked, fresh = Episodes(TARGETS, 12, **RULE), Episodes(TARGETS, 12, **RULE)
    walk = arrived(walked)
    assert [i for draw in fresh.batches(5, 0) for i in draw.indices.tolist()] == walk[5]
    assert arrived(Episodes(TARGETS, 12, **RULE | {"seed": 2})) != walk


def test_episode_counts():
    stream = Episodes(TARGETS, 12, **RULE)
    draws = [draw for task in range(8) for draw in stream.batches(task, 0)]
    assert stream.num_batches() == len(draws)
    assert stream.num_images() == sum(len(draw.indices) for draw in draws)


def test_classes_that_do_not_divide_make_a_smaller_last_pseudo_task():
    stream = Episodes(TARGETS, 12, **RULE | {"num_pseudo_tasks": 4})  # 6 // 4 = 1 class each: six pseudo tasks
    assert len(stream.batches(0, 0)) == 6 * 4 + 1
    stream = Episodes(TARGETS, 12, **RULE | {"group_size": 5, "num_pseudo_tasks": 2})  # 2 + 2 + 1
    assert len(stream.batches(0, 0)) == 3 * 4 + 1


def test_more_pseudo_tasks_than_classes_are_refused():
    with pytest.raises(UsageError, match="--num_tasks 7"):
        Episodes(TARGETS, 12, **RULE | {"num_pseudo_tasks": 7})


# Adaptation


PAIRS = dict(seed=1, batch_size=4, num_epochs=2, updates=3, num_sessions=3, session_share=0.5, forget_classes=2)


def pairs_of(stream, task: int, epoch: int = 0) -> list[tuple[list[int], list[int]]]:
    """(session batch, forgetting batch) of each update."""
    draws = [draw.indices.tolist() for draw in stream.batches(task, epoch)]
    return list(zip(draws[::2], draws[1::2], strict=True))


@settings(max_examples=60, deadline=None)
@given(
    num_classes=st.integers(2, 30),
    data=st.data(),
    share=st.floats(0.1, 0.9),
    samples=st.one_of(st.none(), st.integers(1, 5)),
    updates=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_sessions_partition_their_classes_and_nothing_of_them_is_forgotten(
    num_classes, data, share, samples, updates, seed
):
    num_session_classes = int(num_classes * share)
    sessions = data.draw(st.integers(1, max(1, num_session_classes)))
    targets = torch.arange(num_classes).repeat(4)
    rule = PAIRS | {"session_share": share, "num_sessions": sessions, "updates": updates, "seed": seed}
    if num_session_classes == 0:
        with pytest.raises(UsageError, match="--num_sessions 1: only 0 of"):
            Adaptation(targets, num_classes, **rule, samples=samples)
        return
    stream = Adaptation(targets, num_classes, **rule, samples=samples)
    classes = [stream.task_classes(task) for task in range(stream.num_tasks)]
    assert sorted(sum(classes, [])) == list(range(num_session_classes))
    for task, own in enumerate(classes):
        pairs = pairs_of(stream, task)
        learnt = [i for batch, _ in pairs for i in batch]
        assert {targets[i].item() for i in learnt} == set(own)
        times = torch.bincount(torch.tensor(learnt))
        assert set(times.tolist()) <= {0, updates}
        assert (times > 0).sum() == len(own) * min(samples or 4, 4)
        assert all(targets[i] >= num_session_classes for _, batch in pairs for i in batch)
    draws = [draw for task in range(sessions) for epoch in (0, 1) for draw in stream.batches(task, epoch)]
    assert all(draw.augment for draw in draws)
    assert stream.num_batches() == len(draws)
    assert stream.num_images() == sum(len(d.indices) for task in range(sessions) for d in stream.batches(task, 0))


def adaptation(targets=None, num_classes=12, **changed) -> Adaptation:
    return Adaptation(TARGETS if targets is None else targets, num_classes, **PAIRS | changed)


def test_updates_repeat_the_session_batch_with_new_forgetting_batches():
    pairs = pairs_of(adaptation(), 0)
    for first in range(0, len(pairs), 3):
        assert len({tuple(session) for session, _ in pairs[first : first + 3]}) == 1
        assert len({tuple(forgetting) for _, forgetting in pairs[first : first + 3]}) == 3
    sessions = [tuple(session) for session, _ in pairs[::3]]
    assert len(set(sessions)) == len(sessions)


def test_forgetting_classes_come_a_few_at_a_time_and_whole():
    """Two classes of 11 images in batches of 4: six batches bring every image once, then the next two classes come."""
    stream = adaptation(num_epochs=1, batch_size=4, updates=60)
    rounds = []
    for task in range(3):
        forgetting = [batch for _, batch in pairs_of(stream, task)]
        for start in range(0, len(forgetting) - 5, 6):
            images = sum(forgetting[start : start + 6], [])
            assert [len(batch) for batch in forgetting[start : start + 6]] == [4] * 5 + [2]
            assert len(set(images)) == len(images)
            rounds.append(tuple(sorted(set(TARGETS[images].tolist()))))
    assert {len(chosen) for chosen in rounds} == {2}
    assert set(sum(rounds, ())) == set(range(6, 12))
    repeated = sum(chosen == before for before, chosen in zip(rounds, rounds[1:])) / len(rounds)
    assert 0.25 < repeated < 0.5  # 1/3, and now and then the same two are drawn anew


def test_adaptation_passes_differ_and_can_be_drawn_alone():
    walked, fresh = adaptation(), adaptation()
    walk = {(task, epoch): pairs_of(walked, task, epoch) for task in range(3) for epoch in range(2)}
    assert pairs_of(fresh, 2, 1) == walk[2, 1]
    assert walk[0, 0] != walk[0, 1]
    forgetting = {place: [batch for _, batch in pairs] for place, pairs in walk.items()}
    assert forgetting[0, 0][:3] != forgetting[0, 1][:3] and forgetting[0, 0][:3] != forgetting[1, 0][:3]
    assert sorted(sum((s for s, _ in walk[0, 0]), [])) == sorted(sum((s for s, _ in walk[0, 1]), []))
    torch.manual_seed(5)  # the global generator has no part in it
    assert pairs_of(adaptation(), 0) == walk[0, 0]
    assert pairs_of(adaptation(seed=2), 0) != walk[0, 0]


def test_images_of_a_class_are_drawn_once():
    stream = adaptation(samples=2)
    learnt = [sorted({i for s, _ in pairs_of(stream, 0, epoch) for i in s}) for epoch in (0, 1)]
    assert learnt[0] == learnt[1] and len(learnt[0]) == 2 * len(stream.task_classes(0))
    assert len({i for task in range(3) for _, f in pairs_of(stream, task) for i in f}) <= 2 * 6


def test_fewer_forgetting_classes_than_asked_for():
    stream = adaptation(forget_classes=99, updates=17)
    first_round = [batch for _, batch in pairs_of(stream, 0)][:17]  # 6 classes of 11 images, in batches of 4
    assert sorted(TARGETS[sum(first_round, [])].tolist()) == sorted(list(range(6, 12)) * 11)


def test_classes_without_images_are_passed_over():
    targets = torch.tensor([0, 0, 1, 1, 5, 5])
    stream = adaptation(targets, 6, session_share=0.67, num_sessions=4)
    assert sorted(len(stream.batches(task, 0)) for task in range(4)) == [0, 0, 6, 6]
    assert all(set(targets[f].tolist()) == {5} for task in range(4) for _, f in pairs_of(stream, task))


@pytest.mark.parametrize(
    "changed, reason",
    [
        ({"num_sessions": 7}, "--num_sessions 7: only 6 of the 12 classes are session classes"),
        ({"session_share": 0.0}, "--num_sessions 3: only 0 of the 12 classes"),
        ({"session_share": 1.0}, "--session_share 1.0: no image is left to forget"),
        ({"targets": torch.arange(6)}, "--session_share 0.5: no image is left to forget"),
    ],
)
def test_adaptation_without_classes_is_refused_in_one_line(changed, reason):
    with pytest.raises(UsageError) as caught:
        adaptation(**changed)
    assert str(caught.value).startswith(reason) and "\n" not in str(caught.value)
