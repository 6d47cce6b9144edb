"""The classifier in closed form that RanPAC and FlyPrompt's router share; its numbers are compared in tests/parity."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn

from backbone.heads import RIDGES, ClassSums, RandomRidge, ridge_solution


def rows(count: int, width: int = 6, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    return torch.randn(count, width, generator=generator), torch.randint(0, classes, (count,), generator=generator)


def classifier(size: int = 16, ridge: float = 1.0, search: bool = False) -> RandomRidge:
    torch.manual_seed(0)
    return RandomRidge(6, size, 3, ridge, search)


@pytest.mark.parametrize("size", [0, 16])
def test_it_is_ridge_regression_on_all_rows(size):
    """The same as least squares with one further row sqrt(lambda) e_k per weight."""
    model, (z, y) = classifier(size, ridge=0.5), rows(40)
    for part in torch.arange(40).split(7):
        model.add(z[part], y[part])
        model(z)
    h = (z if size == 0 else (z @ model.W_rand).relu()).double()
    width = h.shape[1]
    design = torch.cat((h, 0.5**0.5 * torch.eye(width, dtype=torch.float64)))
    targets = torch.cat((nn.functional.one_hot(y, 3), torch.zeros(width, 3))).double()
    expected = torch.linalg.lstsq(design, targets).solution
    torch.testing.assert_close(model.solve().double(), expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(model(z).double(), h @ expected, rtol=1e-3, atol=1e-4)


def test_half_precision_stays_outside():
    model, (z, y) = classifier(), rows(40)
    whole = classifier()
    whole.add(z, y)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model.add(z, y)
        scores = model(z)
    assert torch.equal(model.G, whole.G) and torch.equal(scores, whole(z)) and scores.dtype == torch.float32


def test_ridge_of_a_task_is_chosen_by_its_own_rows():
    model, alone = classifier(search=True), classifier(search=True)
    model.add(*rows(50))
    model.end_task()
    assert model.rows == []
    for each in (model, alone):
        each.add(*rows(30))
    torch.testing.assert_close(model.search_errors(), alone.search_errors(), rtol=0, atol=0)
    model.end_task(), alone.end_task()
    assert model.ridge == alone.ridge == RIDGES[int(alone_errors().argmin())]


def alone_errors(size: int = 16) -> torch.Tensor:
    model, (z, y) = classifier(size, search=True), rows(30)
    h, targets = model.expand(z).double(), nn.functional.one_hot(y, 3).double()
    fit, errors = h[:24], []
    for ridge in RIDGES:
        weight = torch.linalg.solve(fit.T @ fit + ridge * torch.eye(size, dtype=torch.float64), fit.T @ targets[:24])
        errors.append(((h[24:] @ weight - targets[24:]) ** 2).mean())
    return torch.stack(errors)


@pytest.mark.parametrize("size", [16, 64])  # fewer features than rows, and more
def test_search_is_as_accurate_as_a_solution_for_each_candidate_in_double_precision(size):
    model = classifier(size, search=True)
    model.add(*rows(30))
    errors, expected = model.search_errors(), alone_errors(size)
    kept = errors.isfinite()
    torch.testing.assert_close(errors[kept], expected[kept], rtol=1e-8, atol=0)
    # What float32 sums cannot tell from no ridge at all is passed over, and nothing else.
    largest = torch.linalg.matrix_norm(model.expand(rows(30)[0])[:24], ord=2) ** 2
    assert kept.tolist() == [ridge >= 2**-23 * largest for ridge in RIDGES] and 0 < kept.sum() < len(RIDGES)


def test_nothing_is_solved_again_where_nothing_was_learnt(monkeypatch):
    model, searches = classifier(search=True), []
    search = model.search_errors
    monkeypatch.setattr(model, "search_errors", lambda: searches.append(1) or search())
    model.add(*rows(30))
    first = model(rows(5)[0])
    assert torch.equal(model(rows(5)[0]), first)
    model.end_task()
    assert torch.equal(model(rows(5)[0]), first) and len(searches) == 1
    model.add(*rows(20))
    model(rows(5)[0])
    assert len(searches) == 2


def test_a_sum_that_rounding_made_indefinite_is_solved_all_the_same():
    G = torch.diag(torch.tensor([2.0, 1.0, -1e-3]))
    torch.testing.assert_close(ridge_solution(G, torch.ones(3, 1), 1e-4)[:, 0], 1 / (G.diagonal() + 1e-4))


def test_sums_of_classes_are_in_double_precision():
    z, y = rows(40)
    sums, whole = ClassSums(3, 6), ClassSums(3, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        sums.add(z.bfloat16(), y)
        means = sums.means()
    whole.add(z.bfloat16().double(), y)
    assert torch.equal(means, whole.means()) and torch.equal(sums.squares, whole.squares)


def test_a_task_of_one_row_chooses_nothing():
    """There would be nothing to fit, and the least candidate would win."""
    model = classifier(ridge=7.0, search=True)
    model.end_task()
    z, y = rows(1)
    model.add(z, y)
    assert model(z).isfinite().all()
    model.end_task()
    assert model.ridge == 7.0


def test_of_equal_candidates_the_first_is_taken():
    """Features of zero predict nothing under any ridge."""
    model = classifier(size=0, search=True)
    model.add(torch.zeros(10, 6), rows(10)[1])
    model.end_task()
    assert model.ridge == RIDGES[0] == 1e-8


def test_candidates_without_solution_are_passed_over():
    """Where all features are equal, a small ridge is lost in the rounding."""
    model, (z, y) = classifier(size=0, search=True), rows(20)
    model.add(1000 * z[:, :1].expand(-1, 6), y)
    errors = model.search_errors()
    assert errors[0].isinf() and errors[-1].isfinite()
    assert model(z).isfinite().all() and errors[RIDGES.index(model.ridge)] == errors.min()


@pytest.mark.parametrize("later", [1, 20])  # one row alone does not choose the ridge anew
@pytest.mark.parametrize("pending", [0, 30])
@pytest.mark.parametrize("search", [False, True])
def test_statistics_carry_everything_over(search, pending, later):
    model = classifier(search=search)
    model.add(*rows(50))
    model.end_task()
    model.add(*rows(pending))
    file = io.BytesIO()
    torch.save((model.state_dict(), model.statistics()), file)
    file.seek(0)
    state, statistics = torch.load(file, weights_only=True)
    assert state.keys() == {"W_rand", "R"}  # what a file of weights holds; G may take 400 MB
    again = RandomRidge(6, 16, 3, 1.0, search)
    again.load_state_dict(state)
    again.load_statistics(statistics)
    for each in (model, again):
        each.add(*rows(later))
        each.end_task()
    assert torch.equal(model.R, again.R) and model.ridge == again.ridge


def test_no_solution_is_an_error_that_says_what_to_do():
    model = classifier(size=0, ridge=1e-8)
    model.add(torch.full((3, 6), 1000.0), torch.tensor([0, 1, 2]))  # the ridge is lost in the rounding
    with pytest.raises(FloatingPointError, match="--rp_ridge"):
        model(torch.ones(1, 6))
