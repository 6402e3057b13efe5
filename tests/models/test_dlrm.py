"""DLRM against the formula, written out pair by pair."""

import pytest
import torch

import lma
from lma.allocation import Full, Hashed, LowDimension
from lma.models import DLRM


def collection(dim=4, method=None, features=3, **arguments):
    configs = [lma.EmbeddingBagConfig(10 + i, dim, f"t{i}") for i in range(features)]
    return lma.EmbeddingBagCollection(configs, method=method or Full(), **arguments)


@pytest.mark.parametrize("num_dense", [0, 5])
def test_the_interaction_is_every_pair_of_different_vectors_once(num_dense):
    torch.manual_seed(0)
    model = DLRM(collection(), num_dense, bottom=(7,), top=(6,))
    dense = torch.randn(2, num_dense)
    values = torch.tensor([[1, 2, 3], [4, 5, 6]])
    x0 = model.bottom(dense if num_dense else torch.ones(2, 1))
    embedded = model.embeddings(values).view(2, 3, 4)
    expected = []
    for row in range(2):
        vectors = [x0[row], *embedded[row]]
        dots = [vectors[i] @ vectors[j] for i in range(4) for j in range(i)]
        expected.append(model.top(torch.cat([x0[row], torch.stack(dots)]))[0])
    torch.testing.assert_close(model(dense, values), torch.stack(expected))


def test_every_parameter_gets_a_gradient():
    model = DLRM(collection(method=Hashed(), budget=400), 2)
    model(torch.randn(8, 2), torch.randint(0, 10, (8, 3))).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_it_is_built_around_the_dimension_that_the_embeddings_have():
    embeddings = collection(dim=16, method=LowDimension(dim=2))
    assert DLRM(embeddings, 1)(torch.zeros(3, 1), torch.zeros(3, 3, dtype=torch.long)).shape == (3,)


def test_an_empty_batch():
    assert DLRM(collection(), 2)(torch.zeros(0, 2), torch.zeros(0, 3).long()).shape == (0,)


def test_wrong_dense_features():
    with pytest.raises(ValueError, match=r"dense must be \[batch, 2\], found \[3, 4\]"):
        DLRM(collection(), 2)(torch.zeros(3, 4), torch.zeros(3, 3).long())
