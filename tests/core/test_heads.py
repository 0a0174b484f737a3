import pytest
import torch
from torch.nn import functional as F

from gmmcli.core.heads import LDA, GaussianHead, Linear, LinearHead, MaxMahalanobis
from gmmcli.core.means import max_mahalanobis_means
from gmmcli.core.protocols import Head


@pytest.fixture
def features(generator: torch.Generator) -> torch.Tensor:
    return torch.randn(5, 8, generator=generator)


@pytest.mark.parametrize("head", [MaxMahalanobis(radius=3.0), LDA(radius=3.0)])
def test_gaussian_heads_answer_with_half_squared_distances(head: MaxMahalanobis | LDA, features: torch.Tensor) -> None:
    built = head.build(4, 8)
    assert isinstance(built, GaussianHead)
    torch.testing.assert_close(built(features), -(torch.cdist(features, max_mahalanobis_means(4, 8, 3.0)) ** 2) / 2)


def test_fixed_means_are_saved_but_never_learnt() -> None:
    built = MaxMahalanobis().build(4, 8)
    assert not list(built.parameters())
    assert torch.equal(built.state_dict()["means"], max_mahalanobis_means(4, 8, 10.0))


def test_lda_means_are_learnt_by_the_gradient_of_the_distance(features: torch.Tensor) -> None:
    built = LDA().build(4, 8)
    (means,) = built.parameters()
    built(features)[:, 2].sum().backward()
    expected = torch.zeros(4, 8)
    expected[2] = (features - means[2].detach()).sum(0)
    torch.testing.assert_close(means.grad, expected)


def test_linear_head_is_the_usual_last_layer(features: torch.Tensor) -> None:
    built = Linear().build(4, 8)
    assert isinstance(built, LinearHead)
    torch.testing.assert_close(built(features), F.linear(features, built.weight, built.bias))
    assert built(features).shape == (5, 4)


@pytest.mark.parametrize("head", [MaxMahalanobis(), LDA()])
def test_heads_refuse_more_classes_than_fit(head: MaxMahalanobis | LDA) -> None:
    head.build(9, 8)
    with pytest.raises(ValueError, match="10 classes and 8 features"):
        head.build(10, 8)


@pytest.mark.parametrize(("head", "kind"), [(MaxMahalanobis(), "max-mahalanobis"), (LDA(), "lda"), (Linear(), "linear")])
def test_kinds_are_the_words_of_recipes(head: Head, kind: str) -> None:
    assert head.kind == kind
