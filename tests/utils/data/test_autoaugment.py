"""AutoAugment against torchvision, operation by operation and as a whole; its draws, its groups, its device."""

from __future__ import annotations

from collections import Counter
from itertools import product

import pytest
import torch
from scipy.stats import chisquare
from torch import Generator, Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision.transforms import AutoAugment, AutoAugmentPolicy, InterpolationMode
from torchvision.transforms.autoaugment import _apply_op

from tests.tiny import needs_cuda
from utils.data.autoaugment import LEVELS, OPERATIONS, UNSIGNED, autoaugment, draw, magnitude_of

POLICIES = pytest.mark.parametrize("policy", ["cifar10", "imagenet", "svhn"])
EVERY_OPERATION = pytest.mark.parametrize("name", OPERATIONS)
SIZES = pytest.mark.parametrize("size", [(1, 1), (2, 5), (3, 3), (32, 32), (33, 20)], ids=str)
BEYOND = {  # magnitudes that no policy has
    "ShearX": (0.77,),
    "ShearY": (0.77,),
    "TranslateX": (0.99, 1.0, 1000.0),
    "TranslateY": (0.99, 1.0, 1000.0),
    "Rotate": (90.0, 123.4),
    "Brightness": (1.0,),
    "Color": (1.0,),
    "Contrast": (1.0,),
    "Sharpness": (1.0,),
    "Posterize": (3.0, 2.0, 1.0),
    "Solarize": (127.5, 128.0),
}


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def pictures(height: int, width: int) -> Tensor:
    """Noise, noise of few values, mostly dark noise, and a ramp with two constant channels: uint8 [4, 3, H, W]."""
    noise = torch.rand(3, 3, height, width, generator=seeded())
    ramp = torch.stack([torch.linspace(0, 1, width).expand(height, width), *torch.full((2, height, width), 0.3)])
    images = torch.stack([noise[0], 0.4 + 0.03 * noise[1], noise[2] ** 5, ramp])
    return (images * 255).round().to(torch.uint8)


def as_floats(pixels: Tensor) -> Tensor:
    return pixels.float() / 255


def policies_of(policy: str) -> list:
    return AutoAugment(AutoAugmentPolicy(policy)).policies


def space(height: int, width: int) -> dict[str, tuple[Tensor, bool]]:
    """torchvision's magnitudes of every operation, and whether they get a sign."""
    return AutoAugment()._augmentation_space(LEVELS, (height, width))


def theirs(name: str, image: Tensor, magnitude: float) -> Tensor:
    return _apply_op(image, name, magnitude, InterpolationMode.NEAREST, None)


def ours(name: str, pixels: Tensor, magnitudes: list[float]) -> Tensor:
    return OPERATIONS[name](pixels, torch.tensor(magnitudes, dtype=torch.float64).view(-1, 1, 1, 1))


@EVERY_OPERATION
@SIZES
def test_operation_equals_torchvision(name, size):
    """Exactly. Only where a sheared or turned pixel falls between two others may it be either of them."""
    magnitudes, signed = space(*size)[name]
    values = sorted({*magnitudes.flatten().tolist(), *BEYOND.get(name, ())})
    values = [float(sign * value) for value in values for sign in ((1, -1) if signed else (1,))]
    images, values = zip(*product(pictures(*size), values))
    result = ours(name, torch.stack(images), list(values))  # a magnitude for each image
    assert result.dtype == torch.uint8
    allowed = result == torch.stack([theirs(name, image, value) for image, value in zip(images, values)])
    if name in ("ShearX", "ShearY", "Rotate"):
        for nudge in (-1e-3, 1e-3):
            nudged = [value + nudge * float(magnitudes[-1]) for value in values]
            allowed |= result == torch.stack([theirs(name, image, value) for image, value in zip(images, nudged)])
    assert allowed.all()


@pytest.mark.parametrize("name", ["Invert", "AutoContrast", "Equalize", "Contrast", "Sharpness", "Rotate"])
def test_large_image_equals_torchvision(name):
    """Sums and histograms over 224 x 224 pixels; no angle of the policies has ties there."""
    pixels = pictures(224, 224)
    value = magnitude_of(name, 7, 224, 224) if name in BEYOND else 0.0
    assert torch.equal(ours(name, pixels, [value] * 4), torch.stack([theirs(name, image, value) for image in pixels]))


@EVERY_OPERATION
def test_magnitudes_are_torchvisions(name):
    for size in ((32, 32), (224, 224), (33, 48)):
        magnitudes, signed = space(*size)[name]
        if magnitudes.ndim:
            own = [magnitude_of(name, level, *size) for level in range(LEVELS)]
            assert (torch.tensor(own).round() if name == "Posterize" else torch.tensor(own)).equal(magnitudes.float())
            assert signed == (name not in UNSIGNED)
        assert magnitude_of(name, None, *size) == 0


@pytest.mark.parametrize("value", [0, 7, 255])
@pytest.mark.parametrize("name", ["AutoContrast", "Equalize"])
def test_constant_image_stays(name, value):
    pixels = torch.full((2, 3, 32, 32), value, dtype=torch.uint8)
    assert torch.equal(ours(name, pixels, [0.0, 0.0]), pixels)


def has_ties(pair) -> bool:
    """Shears by 1/15 and 1/5 put whole rows exactly between two pixels."""
    return any(name.startswith("Shear") and level in (2, 6) for name, _, level in pair)


@POLICIES
@pytest.mark.parametrize(("per", "count"), [("image", 1), ("batch", 3)])
def test_one_draw_equals_torchvision_with_the_same_seed(policy, per, count):
    reference = AutoAugment(AutoAugmentPolicy(policy))
    pixels = pictures(32, 28)[:count]
    compared = changed = 0
    for seed in range(150):
        if has_ties(reference.policies[torch.randint(25, (1,), generator=seeded(seed))]):
            continue
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            expected = reference(pixels)
        assert torch.equal(autoaugment(as_floats(pixels), policy, seeded(seed), per), as_floats(expected)), seed
        compared += 1
        changed += not torch.equal(expected, pixels)
    assert compared > 100 and changed > 75


@POLICIES
def test_each_image_gets_the_operations_drawn_for_it(policy):
    pixels = pictures(16, 20).repeat(32, 1, 1, 1)
    result = autoaugment(as_floats(pixels), policy, seeded())
    names = list(OPERATIONS)
    kinds, magnitudes = draw(policy, len(pixels), 16, 20, seeded())
    for image, row, pair, values in zip(pixels, result, kinds.tolist(), magnitudes.tolist()):
        expected = image[None]
        for kind, value in zip(pair, values):
            expected = ours(names[kind], expected, [value]) if kind >= 0 else expected
        assert torch.equal(row, as_floats(expected[0]))


@POLICIES
def test_sub_policies_probabilities_and_signs(policy):
    """Frequencies of everything a draw can be, against the table; chi-square, fixed seed."""
    count, size = 200_000, (32, 48)
    expected = Counter()
    for pair in policies_of(policy):
        outcomes = []
        for name, probability, level in pair:
            magnitudes, signed = space(*size)[name]
            value = float(magnitudes[level]) if level is not None else 0.0
            applied = [(name, sign * value, probability / 2) for sign in (1, -1 if signed else 1)]
            outcomes.append([*applied, (None, 0.0, 1 - probability)])
        for (first, value, p), (second, other, q) in product(*outcomes):
            expected[first, value, second, other] += count * p * q / len(policies_of(policy))
    expected = {outcome: share for outcome, share in expected.items() if share > 0}

    kinds, magnitudes = draw(policy, count, *size, seeded())
    magnitudes = magnitudes.where(kinds >= 0, 0.0)
    posterize = list(OPERATIONS).index("Posterize")
    magnitudes = magnitudes.where(kinds != posterize, magnitudes.round())
    names = [*OPERATIONS, None]
    observed = Counter(
        (names[first], value, names[second], other)
        for (first, second), (value, other) in zip(kinds.tolist(), magnitudes.tolist())
    )
    assert observed.keys() == expected.keys()
    assert chisquare([observed[outcome] for outcome in expected], list(expected.values())).pvalue > 0.01


@POLICIES
def test_images_of_one_content_differ_unless_they_share_a_draw(policy):
    images = as_floats(pictures(32, 32)[:1]).repeat(32, 1, 1, 1)

    def distinct(seed: int, per: str) -> int:
        return len({image.numpy().tobytes() for image in autoaugment(images, policy, seeded(seed), per)})

    assert distinct(0, "image") > 8
    assert {distinct(seed, "batch") for seed in range(20)} == {1}


@SIZES
@POLICIES
@pytest.mark.parametrize("count", [1, 24])
def test_result_is_repeatable_in_range_and_leaves_the_input_alone(policy, size, count):
    images = as_floats(pictures(*size)).repeat(6, 1, 1, 1)[:count]
    before = images.clone()
    first, again = (autoaugment(images, policy, seeded(3)) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(images, before)
    assert (first.shape, first.dtype) == (images.shape, torch.float32)
    assert first.min() >= 0 and first.max() <= 1


def test_generator_moves_on():
    images, generator = as_floats(pictures(32, 32)).repeat(6, 1, 1, 1), seeded()
    assert not torch.equal(autoaugment(images, "cifar10", generator), autoaugment(images, "cifar10", generator))


@POLICIES
def test_values_between_two_steps_are_rounded(policy):
    pixels = pictures(32, 32)
    between = (pixels + 0.4) / 255
    between = between.where(pixels < 255, 1.0)
    for seed in range(8):
        assert torch.equal(
            autoaugment(between, policy, seeded(seed)), autoaugment(as_floats(pixels), policy, seeded(seed))
        )


def test_wrong_names_are_refused():
    images = as_floats(pictures(4, 4))
    with pytest.raises(ValueError, match="cifar11"):
        autoaugment(images, "cifar11", seeded())
    with pytest.raises(KeyError, match="pixel"):
        autoaugment(images, "cifar10", seeded(), per="pixel")


@EVERY_OPERATION
def test_operation_stays_on_its_device_and_never_asks_for_values(name):
    """Without a GPU: fake tensors refuse to mix devices, and to give a value or a size that depends on values."""
    with FakeTensorMode():
        pixels = torch.empty(4, 3, 9, 8, dtype=torch.uint8, device="cuda")
        result = OPERATIONS[name](pixels, torch.empty(4, 1, 1, 1, dtype=torch.float64, device="cuda"))
        assert (result.device.type, result.dtype, result.shape) == ("cuda", torch.uint8, pixels.shape)


@needs_cuda
@POLICIES
def test_gpu_gets_the_same_images_without_waiting(policy):
    images = as_floats(pictures(32, 32)).repeat(32, 1, 1, 1)
    expected, on_device = autoaugment(images, policy, seeded()), images.to("cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        result = autoaugment(on_device, policy, seeded())
    finally:
        torch.cuda.set_sync_debug_mode("default")
    # In bytes, as a division by 255 rounds otherwise there. Shears by 1/15 and 1/5 have ties, which may be decided
    # otherwise too.
    assert ((255 * result.cpu()).round() == (255 * expected).round()).float().mean() > 0.98
