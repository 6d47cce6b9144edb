"""The on-board datasets: arrays as the contract says, the same bytes everywhere, and no class where it must not be."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
import torch

from datasets import glyphs as glyphs_file
from datasets.base import Places
from datasets.drawing import characters, handwriting, renditions
from datasets.glyphs import Glyphs
from datasets.seq_characters import SeqCharacters
from datasets.seq_digits import SeqDigits
from datasets.seq_glyphs import SeqGlyphs
from datasets.seq_glyphs_dev import SeqGlyphsDev
from utils.data.augment import affine_matrices, random_affine, random_shift
from utils.data.images import ImageSet
from utils.data.splits import hold_out
from utils.errors import UsageError
from utils.training.evaluation import Evaluator

COUNTS = {
    Glyphs: (50_000, 5_000),
    SeqGlyphs: (8_000, 2_000),
    SeqGlyphsDev: (4_000, 1_000),
    SeqDigits: (1_437, 360),
    SeqCharacters: (6_210, 2_070),
}
AUGMENTED = pytest.mark.parametrize(
    "dataset", [each for each in COUNTS if each is not SeqCharacters], ids=lambda dataset: dataset.__name__
)
DATASETS = pytest.mark.parametrize("dataset", COUNTS, ids=lambda dataset: dataset.__name__)
PARTS = pytest.mark.parametrize("train", [True, False], ids=["train", "test"])


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def other_root(tmp_path_factory):
    return tmp_path_factory.mktemp("other_data")


def at(folder) -> Places:
    return Places(folder, folder, 32)


def first_images(dataset, root, count=16):
    return torch.tensor(dataset().load(at(root), train=True)[0][:count]).float() / 255


@DATASETS
@PARTS
def test_arrays_follow_the_contract(dataset, train, root):
    images, labels = dataset().load(at(root), train)
    count = COUNTS[dataset][0 if train else 1]
    assert images.shape == (count, 3, dataset.image_size, dataset.image_size)
    assert labels.shape == (count,)
    assert (images.dtype, labels.dtype) == (np.uint8, np.int64)


@DATASETS
@PARTS
def test_every_class_has_its_share_of_the_images(dataset, train, root):
    _, labels = dataset().load(at(root), train)
    sizes = np.bincount(labels)
    assert len(sizes) == dataset.num_classes
    # The digits come as they were written, 174 to 183 of each; the synthetic classes are exactly equal.
    assert sizes.max() - sizes.min() <= (8 if dataset is SeqDigits else 0)


# The training part of `glyphs` is left out: the same code draws its test part in a tenth of the time.
@pytest.mark.parametrize(
    ("dataset", "train"),
    [(Glyphs, False), (SeqGlyphs, True), (SeqGlyphs, False), (SeqDigits, True), (SeqDigits, False)],
)
def test_a_fresh_folder_gets_the_same_bytes(dataset, train, root, other_root):
    for ours, theirs in zip(dataset().load(at(root), train), dataset().load(at(other_root), train)):
        assert np.array_equal(ours, theirs)


def test_second_load_maps_the_file_and_leaves_no_temporary_ones(root):
    files = sorted(root.rglob("*"))
    SeqGlyphs().load(at(root), train=True)
    assert sorted(root.rglob("*")) == files
    assert not [path for path in files if ".tmp" in path.name]
    assert isinstance(SeqGlyphs().load(at(root), train=True)[0], np.memmap)


def test_changed_settings_get_another_file(tmp_path):
    first = characters.cached(tmp_path, "numbers", ("a",), lambda: np.zeros(2))
    second = characters.cached(tmp_path, "numbers", ("b",), lambda: np.ones(2))
    again = characters.cached(tmp_path, "numbers", ("a",), lambda: pytest.fail("made twice"))
    assert first.tolist() == again.tolist() == [0, 0]
    assert second.tolist() == [1, 1]


def test_failed_making_leaves_nothing_behind(tmp_path):
    with pytest.raises(ValueError, match="Object arrays"):
        characters.cached(tmp_path, "numbers", (), lambda: np.array([{}], dtype=object))
    assert not list(tmp_path.iterdir())


def test_classes_of_pretraining_and_downstream_are_disjoint(root):
    text = characters.characters(root)
    pretraining, downstream = set(text[characters.PRETRAINING]), set(text[characters.DOWNSTREAM])
    assert (len(pretraining), len(downstream)) == (1000, 300)
    assert not pretraining & downstream
    assert len(set(text)) == len(text)


def test_characters_that_glyphs_lacks_are_drawn_as_there(root):
    """All that there are, in the faces of `glyphs`, grey and as they are; other images than those of `seq-glyphs`."""
    text = characters.characters(root)
    chosen = text[SeqCharacters.chosen]
    assert len(chosen) == SeqCharacters.num_classes == 414
    assert {*chosen} == {*text} - {*text[Glyphs.chosen]}
    assert (SeqCharacters.training[0], SeqCharacters.test[0]) == (Glyphs.training[0], Glyphs.test[0])
    images, _ = SeqCharacters().load(at(root), train=True)
    assert (images == images[:, :1]).all()
    masks = characters.base_masks(root, chosen, glyphs_file.TRAIN_FACES)
    assert masks.any(axis=(2, 3)).all()
    for label in (0, 413):  # ink where the character has it, on average
        ink = np.kron(images[15 * label :][:15, 0].mean(axis=0), np.ones((2, 2)))
        likeness = [np.corrcoef(ink.ravel(), masks[other].mean(axis=0).ravel())[0, 1] for other in range(414)]
        assert np.argsort(likeness)[::-1].tolist().index(label) < 10
    x = first_images(SeqCharacters, root)
    assert torch.equal(SeqCharacters().augment(x, torch.Generator()), x)


def test_no_character_is_a_digit_or_looks_like_one(root):
    text = characters.characters(root)
    assert {unicodedata.category(character)[0] for character in text} == {"L", "S"}
    assert not set(text) & set("0123456789OoIlΟоІ")
    assert characters.digit_similarity(text).max() < characters.MAX_DIGIT_SIMILARITY


def test_glyphs_are_centred_and_never_clipped():
    masks = characters.render("Mil", "DejaVuSerif")
    for mask in masks:
        rows, columns = mask.any(axis=1).nonzero()[0], mask.any(axis=0).nonzero()[0]
        for used in (rows, columns):
            assert abs(used[0] + used[-1] - (characters.MASK_SIZE - 1)) <= 1
        assert abs(max(np.ptp(rows), np.ptp(columns)) - characters.FILL * characters.MASK_SIZE) <= 3


def test_every_character_is_visible_in_every_face(root):
    chosen = characters.characters(root)[characters.PRETRAINING]
    assert characters.base_masks(root, chosen, glyphs_file.TRAIN_FACES).any(axis=(2, 3)).all()
    assert characters.base_masks(root, chosen, glyphs_file.TEST_FACES).any(axis=(2, 3)).all()


@pytest.mark.parametrize("file", [glyphs_file, renditions], ids=["glyphs", "seq_glyphs"])
def test_training_and_test_faces_make_up_all_faces_without_overlap(file):
    assert not set(file.TRAIN_FACES) & set(file.TEST_FACES)
    assert set(file.TRAIN_FACES) | set(file.TEST_FACES) == set(characters.FACES)


def test_pretraining_is_light_ink_on_dark_ground():
    ink, ground = handwriting.draw_tones(500, torch.Generator().manual_seed(0))
    assert (ink - ground).min() >= 0.35 - 1e-6
    assert (ground.min() >= 0) and (ground.max() <= 0.35 + 1e-6)
    assert (ink.min() >= 0.55) and (ink.max() <= 1)


def test_plain_images_are_grey_and_their_share_is_kept(root):
    images, _ = SeqGlyphs().load(at(root), train=True)
    kinds = renditions.draw_kinds(4000, 0.3, torch.Generator().manual_seed(0))
    number = sum(kinds.values()).flatten()
    assert set(number.tolist()) == {0, 1, 2}
    assert abs((number > 0).float().mean() - 0.3) < 0.03
    grey = (images == images[:, :1]).all(axis=(1, 2, 3)).mean()
    assert grey > 1 - renditions.SHARE


@pytest.mark.parametrize("kind", renditions.KINDS)
def test_each_rendition_changes_the_image(kind, root):
    masks = characters.base_masks(
        root, characters.characters(root)[characters.DOWNSTREAM][:200], renditions.TRAIN_FACES
    )
    coverage = handwriting.handwrite(handwriting.sample_masks(masks, np.arange(8), 2), torch.Generator().manual_seed(0))

    def draw(chosen):
        kinds = {name: torch.full((16, 1, 1, 1), name == chosen) for name in renditions.KINDS}
        return renditions.rendition(coverage, kinds, 1.0, torch.Generator().manual_seed(0))

    changed, plain = draw(kind), draw(None)
    assert changed.shape == (16, 3, 32, 32)
    assert changed.min() >= 0 and changed.max() <= 1
    assert ((changed - plain).abs().amax(dim=(1, 2, 3)) > 0.02).all()


def test_dilate_is_the_maximum_of_three_by_three():
    images = torch.rand(2, 3, 7, 9, generator=torch.Generator().manual_seed(0))
    assert torch.equal(handwriting.dilate(images), torch.nn.functional.max_pool2d(images, 3, stride=1, padding=1))


@AUGMENTED
def test_augment_is_repeatable_and_stays_in_range(dataset, root):
    images = first_images(dataset, root)
    first, again, other = (dataset().augment(images, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == images.shape
    assert first.dtype == torch.float32
    assert first.min() >= 0 and first.max() <= 1


@AUGMENTED
def test_augment_draws_for_each_image(dataset, root):
    same = first_images(dataset, root, 1).repeat(16, 1, 1, 1)
    augmented = dataset().augment(same, torch.Generator().manual_seed(0))
    assert len({image.numpy().tobytes() for image in augmented}) > 8


def test_random_shift_moves_whole_pixels():
    images = torch.zeros(64, 1, 9, 9)
    images[:, :, 4, 4] = 1
    moved = random_shift(images, 2, torch.Generator().manual_seed(0))
    assert (moved.sum(dim=(1, 2, 3)) == 1).all()
    rows, columns = moved.nonzero()[:, 2], moved.nonzero()[:, 3]
    assert rows.unique().tolist() == columns.unique().tolist() == [2, 3, 4, 5, 6]


def test_random_affine_without_freedom_changes_nothing():
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    moved = random_affine(images, 0, 0, (1.0, 1.0), torch.Generator().manual_seed(0))
    torch.testing.assert_close(moved, images, atol=1e-5, rtol=0)


def test_affine_moves_turns_and_magnifies_the_content():
    image = torch.zeros(1, 1, 17, 17)
    image[..., 8, 12] = 1  # four pixels to the right of the centre

    def brightest(degrees=0.0, zoom=1.0, shift=(0.0, 0.0)):
        matrix = affine_matrices(
            torch.tensor([degrees]), torch.zeros(1), torch.full((1, 2), zoom), torch.tensor([shift]) * 2 / 17
        )
        grid = torch.nn.functional.affine_grid(matrix, [1, 1, 17, 17], align_corners=False)
        moved = torch.nn.functional.grid_sample(image, grid, align_corners=False)
        return tuple((moved[0, 0] == moved.max()).nonzero()[0].tolist())

    assert brightest() == (8, 12)
    assert brightest(shift=(2.0, -3.0)) == (5, 14)
    assert brightest(zoom=0.5) == (8, 10)
    assert brightest(degrees=90.0) == (12, 8)


def test_development_set_shares_no_class_with_the_benchmark(root):
    text = characters.characters(root)
    development = set(text[: SeqGlyphsDev.num_classes])
    benchmark = set(text[characters.DOWNSTREAM.start :][: SeqGlyphs.num_classes])
    assert development <= set(text[characters.PRETRAINING]) and not development & benchmark


def test_held_out_images_are_not_trained_on():
    labels = np.array([0] * 10 + [1] * 3 + [2] * 2 + [3])
    kept, held = hold_out(labels, 0.2)
    assert sorted([*kept, *held]) == list(range(len(labels)))  # every image on one side
    assert np.bincount(labels[held], minlength=4).tolist() == [2, 1, 1, 0]  # a single image is trained on
    assert np.array_equal(hold_out(labels, 0.2)[1], held)  # the same images for every seed of a run
    images = np.arange(len(labels) * 3, dtype=np.uint8).reshape(-1, 3, 1, 1)
    held_set = ImageSet(images, labels, torch.device("cpu"), held)
    assert held_set.labels.tolist() == labels[held].tolist()
    assert held_set.raw(torch.tensor([1, 0]))[:, 0, 0, 0].tolist() == [3 * held[1], 3 * held[0]]


def test_validation_needs_a_second_image_of_some_class(capsys):
    with pytest.raises(UsageError, match="--validation 0.5: no class has a second training image"):
        hold_out(np.arange(7), 0.5)
    rows, held = hold_out(np.array([0, 1, 1, 2, 3, 3, 3]), 0.5)
    assert len(rows) == 5 and len(held) == 2
    assert "2 of 4 classes have one image, which is not held out" in capsys.readouterr().err


def test_a_test_part_that_cannot_be_evaluated_is_refused():
    labels = np.zeros(0, dtype=np.int64)
    empty = Evaluator(ImageSet(np.zeros((0, 3, 8, 8), np.uint8), labels, torch.device("cpu")), None, 8)
    with pytest.raises(UsageError, match="the test part holds no image"):
        empty.check(torch.arange(3))
    other = Evaluator(ImageSet(np.zeros((2, 3, 8, 8), np.uint8), np.array([3, 4]), torch.device("cpu")), None, 8)
    with pytest.raises(UsageError, match="no test image is of a class that is trained on"):
        other.check(torch.arange(3))
    other.check(torch.arange(4))
