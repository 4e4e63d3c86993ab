"""How addresses are read: which bits are told by themselves, and which by codes."""

import numpy as np
import pytest
import torch

from aunn_data.corpus import Corpus
from aunn_model.embedding import Embedding
from pipelines.fields import fields_of
from tests.corpora import append, smooth, text, volume


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    corpus = Corpus.create(tmp_path_factory.mktemp("fields") / "corpus", 32)
    append(corpus, *(volume(f"{number}.npy", smooth((4, 8, 8), number)) for number in range(6)))
    append(corpus, text("a.txt", b"To be, or not to be\n" * 9))
    return corpus


def embedding(corpus, codes=0, unit=1):
    torch.manual_seed(0)
    return Embedding(fields_of(corpus, 0.5, 32, codes > 0, unit), codes)


def at(*addresses):
    return torch.tensor(addresses, dtype=torch.int64)


def test_header_and_payload_of_a_record_have_one_code_and_records_have_others(corpus):
    """What a step on the payload says of the code, it says of the label in the header too."""
    reads = embedding(corpus, codes=256)
    entries = [corpus.entries.named(f"{number}.npy") for number in range(6)]
    codes_EP = reads.parities(at(*(entry.payload_start + 5 for entry in entries)))
    assert torch.equal(codes_EP, reads.parities(at(*(entry.header_start + 77 for entry in entries))))
    alike_EE = codes_EP @ codes_EP.T / 256
    assert (alike_EE - torch.eye(6)).abs().max() < 0.35


def test_with_codes_the_same_voxel_of_two_records_is_read_alike_but_for_the_code(corpus):
    """The bits that number records are told by codes alone."""
    first, second = (corpus.entries.named(name).payload_start for name in ("0.npy", "3.npy"))
    offsets_B = torch.arange(40)
    reads = embedding(corpus, codes=16)
    assert torch.equal(reads(first + offsets_B), reads(second + offsets_B))
    plain = embedding(corpus)
    assert not torch.equal(plain(first + offsets_B), plain(second + offsets_B))


def test_a_unit_of_a_list_has_one_code_and_its_addresses_are_equally_far_apart(corpus):
    """Of four addresses each two differ in their features by the same."""
    start = corpus.entries.named("a.txt").payload_start // 4 * 4
    reads = embedding(corpus, codes=64, unit=4)
    four_B = start + torch.arange(4)
    assert len(torch.unique(reads.parities(four_B), dim=0)) == 1
    assert not torch.equal(reads.parities(at(start)), reads.parities(at(start + 4)))
    apart_BB = torch.cdist(reads(four_B), reads(four_B))[~torch.eye(4, dtype=torch.bool)]
    assert torch.allclose(apart_BB, apart_BB[0].expand(12))


@pytest.mark.parametrize("codes", [0, 32])
def test_addresses_far_beyond_the_corpus_are_told_apart(corpus, codes):
    """Up to 2^63 no two addresses are one, however few bits the corpus has."""
    reads = embedding(corpus, codes)
    far = at(100, *(100 + 2**power for power in (31, 32, 40, 55, 62)))
    told_BF = torch.cat([reads(far), reads.parities(far)], dim=1)
    assert len(torch.unique(told_BF, dim=0)) == len(far)


def test_of_each_address_it_is_known_whether_its_byte_is_a_quantity(corpus):
    """Voxels are, text and headers are not, with codes or without."""
    scan, words = corpus.entries.named("0.npy"), corpus.entries.named("a.txt")
    asked = at(scan.header_start, scan.payload_start, words.payload_start, 2**40)
    for codes in (0, 8):
        assert np.array_equal(embedding(corpus, codes).quantities(asked).numpy(), [False, True, False, False])
