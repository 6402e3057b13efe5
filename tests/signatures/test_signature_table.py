"""SignatureTable: bits, finding, comparing, files."""

from __future__ import annotations

import dataclasses
import json
import os

import numpy as np
import pytest
import torch

from lma.errors import FormatError
from lma.hashing import HASH_VERSION, hash_string, to_signed
from lma.signatures import MinHashBuilder, Section, SignatureConfig, SignatureTable, table_file
from lma.signatures.quantise import Codebooks
from lma.signatures.sections import SectionParts, make_table
from lma.signatures.table import pack_codes
from lma.signatures.table_file import FILE_NAME


def small_table(code_bits=16, num_codes=3):
    rng = np.random.default_rng(0)
    codes = {n: rng.integers(0, 1 << code_bits, (c, num_codes)) for n, c in (("a", 9), ("b", 5))}
    parts = [
        SectionParts(
            Section(n, "random", "rows", num_codes, code_bits, len(c)), pack_codes(c, code_bits)
        )
        for n, c in codes.items()
    ]
    return make_table(parts, 7, {"note": "test"}), codes


@pytest.mark.parametrize("num_codes", [1, 3, 8])
@pytest.mark.parametrize("code_bits", [1, 2, 3, 4, 7, 8, 11, 12, 15, 16])
def test_packed_codes_read_back(code_bits, num_codes):
    table, codes = small_table(code_bits, num_codes)
    for name, wanted in codes.items():
        assert table.codes_of(name, torch.arange(len(wanted))).tolist() == wanted.tolist()
    assert table.signature_bytes == 14 * ((num_codes * code_bits + 7) // 8) + 2


def test_a_packed_signature_by_hand():
    """Codes 5, 1, 6 of 3 bits, little-endian: 110 001 101 = 0b110001101 -> bytes 8D 01."""
    assert pack_codes(np.array([[5, 1, 6]]), 3).tolist() == [0x8D, 0x01]


def test_codes_that_do_not_fit():
    with pytest.raises(ValueError, match="does not fit in 3 bits"):
        pack_codes(np.array([[8]]), 3)


def test_unsigned_tokens():
    table, _ = small_table()
    ids = torch.tensor([0, 8, 9, -1, 2**62])
    assert table.find("a", ids).tolist() == [0, 8, -1, -1, -1]
    assert (table.codes_of("a", ids)[2:] == -1).all()
    assert np.isnan(table.similarity(("a", 0), ("a", 99)))
    with pytest.raises(ValueError, match="no signature"):
        table.neighbours("a", 99)
    with pytest.raises(KeyError, match="there are"):
        table.find("c", ids)


def test_neighbours_are_those_that_share_most():
    codes = np.array([[1, 2, 3], [1, 2, 9], [1, 8, 9], [1, 2, 3]])
    section = Section("a", "random", "rows", 3, 16, 4)
    table = make_table([SectionParts(section, pack_codes(codes, 16))], 0, {})
    assert table.neighbours("a", 0, 3) == [(3, 1.0), (1, pytest.approx(2 / 3)), (2, 1 / 3)]
    assert len(table.neighbours("a", 0, 100)) == 3


def learned_table(residual=False):
    """Four tokens of two codes; their vectors are worked out by hand below."""
    books = Codebooks(
        (np.array([[1.0, 0.0], [0.0, 2.0]], np.float32), np.array([[3.0], [-3.0]], np.float32)),
        (np.array([0, 2]), np.array([1])),
        residual,
    )
    section = Section("a", "learned", "context", 2, 1, 4)
    codes = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    return make_table([SectionParts(section, pack_codes(codes, 1), codebooks=books)], 0, {})


def test_learned_codes_are_compared_by_what_they_stand_for(tmp_path):
    """Vectors (1, 3, 0), (1, -3, 0), (0, 3, 2), (0, -3, 2)."""
    learned_table().save(tmp_path)
    for table in (
        learned_table(),
        SignatureTable.load(tmp_path),
        learned_table().truncate({"a": 4}),
    ):
        ten, thirteen = 10**0.5, 13**0.5
        near = table.neighbours("a", 0, 3)
        assert [token for token, _ in near] == [2, 3, 1]
        wanted = [9 / (ten * thirteen), -9 / (ten * thirteen), -8 / 10]
        assert [likeness for _, likeness in near] == pytest.approx(wanted)
        assert table.similarity(("a", 1), ("a", 3)) == pytest.approx(wanted[0])
    assert learned_table().truncate({}).codebooks == {}


def test_learned_codes_of_two_tables_do_not_compare():
    other = learned_table()
    section = dataclasses.replace(other.sections[0], table="b")
    two = SignatureTable([section], other.codes, codebooks={"b": other.codebooks["a"]})
    joined = SignatureTable.join([other, two])
    assert np.isnan(joined.similarity(("a", 0), ("b", 0)))
    assert joined.similarity(("b", 0), ("b", 0)) == pytest.approx(1)
    # Codebooks are for looking at: a file without them still compares codes.
    bare = SignatureTable(other.sections, other.codes)
    assert bare.similarity(("a", 0), ("a", 1)) == 0.5


def test_neighbours_among_given_ids():
    table, codes = small_table()
    among = torch.tensor([4, 99, 2, 0])
    found = table.neighbours("a", 0, among=among)
    assert {token for token, _ in found} == {4, 2}
    shares = {t: float((codes["a"][t] == codes["a"][0]).mean()) for t in (4, 2)}
    assert dict(found) == shares


def test_truncate_permute_join():
    table, codes = small_table(code_bits=11)
    short = table.truncate({"a": 4})
    assert short.tables == ("a",)
    assert short.codes_of("a", torch.arange(4)).tolist() == codes["a"][:4].tolist()
    assert table.truncate({}).tables == ()
    permuted = table.permuted(3)
    everyone = permuted.codes_of("b", torch.arange(5)).tolist()
    assert sorted(everyone) == sorted(codes["b"].tolist())
    assert everyone != codes["b"].tolist()
    joined = SignatureTable.join([table.truncate({"b": 5}), table.truncate({"a": 9})])
    for name, wanted in codes.items():
        assert joined.codes_of(name, torch.arange(len(wanted))).tolist() == wanted.tolist()
    with pytest.raises(ValueError, match="names must differ"):
        SignatureTable.join([table, table])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"kind": "clever"}, "kind"),
        ({"index": "tree"}, "index"),
        ({"code_bits": 0}, "code_bits"),
        ({"num_codes": 0}, "num_codes"),
        ({"num_signed": 0}, "leave it out"),
    ],
)
def test_bad_sections(change, match):
    good = {
        "table": "a", "kind": "random", "similarity": "rows",
        "num_codes": 1, "code_bits": 8, "num_signed": 1,
    }  # fmt: skip
    with pytest.raises(ValueError, match=match):
        Section(**{**good, **change})


def test_tensors_must_fit_the_sections():
    section = Section("a", "random", "rows", 2, 8, 3)
    with pytest.raises(FormatError, match=r"codes: expected torch.uint8 \(8,\)"):
        SignatureTable([section], torch.zeros(7, dtype=torch.uint8))


def test_save_and_load(tmp_path):
    table, codes = small_table()
    table.save(tmp_path / "new" / "folder")
    loaded = SignatureTable.load(tmp_path / "new" / "folder")
    assert loaded.sections == table.sections
    assert (loaded.seed, loaded.provenance) == (7, {"note": "test"})
    for name, wanted in codes.items():
        assert loaded.codes_of(name, torch.arange(len(wanted))).tolist() == wanted.tolist()


def test_damaged_files_are_refused(tmp_path):
    table, _ = small_table()
    table.save(tmp_path)
    path = tmp_path / FILE_NAME
    good = path.read_bytes()
    for size in (0, 4, 20, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:size])
        with pytest.raises(FormatError, match=FILE_NAME):
            SignatureTable.load(tmp_path)
    # Any one byte altered, in the header too, which has a checksum of its own.
    for position in range(len(good)):
        altered = bytearray(good)
        altered[position] ^= 0x15
        path.write_bytes(bytes(altered))
        with pytest.raises(FormatError, match=FILE_NAME):
            SignatureTable.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="no signatures in"):
        SignatureTable.load(tmp_path / "nowhere")


def write_header(path, change):
    """The file again, with its JSON header changed by a function."""
    size = int.from_bytes(path.read_bytes()[:8], "little")
    head, rest = json.loads(path.read_bytes()[8 : 8 + size]), path.read_bytes()[8 + size :]
    header = json.loads(head["__metadata__"]["lma"])
    head["__metadata__"]["lma"] = change(header)
    text = json.dumps(head).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + rest)


def test_an_altered_header_is_refused(tmp_path):
    def seed(header):
        return json.dumps({**header, "seed": 8})

    def one_checksum_less(header):
        del header["checksums"]["codes"]
        return json.dumps(header)

    for change, match in (
        (seed, "checksum of the header"),
        (one_checksum_less, r"differ in \['codes'\]"),
        (lambda header: "[" * 100_000, "damaged"),
    ):
        small_table()[0].save(tmp_path)
        write_header(tmp_path / FILE_NAME, change)
        with pytest.raises(FormatError, match=match):
            SignatureTable.load(tmp_path)


def test_a_file_of_an_earlier_build_has_no_checksum_of_its_header(tmp_path):
    def without(header):
        del header["checksums"]["header"]
        return json.dumps(header)

    table, _ = small_table()
    table.save(tmp_path)
    write_header(tmp_path / FILE_NAME, without)
    assert torch.equal(SignatureTable.load(tmp_path).codes, table.codes)


def test_damaged_codebooks_are_refused(tmp_path):
    learned_table().save(tmp_path)
    path = tmp_path / FILE_NAME
    altered = bytearray(path.read_bytes())
    place = altered.rindex(np.float32(-3.0).tobytes())
    altered[place] ^= 1
    path.write_bytes(altered)
    with pytest.raises(FormatError, match=r"checksum of 'codebooks\.0\.1\.centroids'"):
        SignatureTable.load(tmp_path)


@pytest.mark.parametrize("what", ["HASH_VERSION", "FORMAT"])
def test_other_versions_are_refused_with_both_named(tmp_path, monkeypatch, what):
    table, _ = small_table()
    with monkeypatch.context() as patch:
        patch.setattr(table_file, what, 99)
        table.save(tmp_path)
    with pytest.raises(FormatError, match=rf"99.*hash_version {HASH_VERSION}"):
        SignatureTable.load(tmp_path)


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    table, _ = small_table()
    table.save(tmp_path)
    before = (tmp_path / FILE_NAME).read_bytes()

    def full_disk(tensors, path, metadata):
        with open(path, "wb") as file:
            file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        small_table(8)[0].save(tmp_path)
    assert (tmp_path / FILE_NAME).read_bytes() == before
    assert os.listdir(tmp_path) == [FILE_NAME]


def test_a_disk_that_fills_is_an_error_of_the_system(tmp_path):
    """safetensors' own error for it is no OSError, and names no file."""
    resource = pytest.importorskip("resource")
    small_table()[0].save(tmp_path)
    before = (tmp_path / FILE_NAME).read_bytes()
    codes = torch.zeros(1 << 20, dtype=torch.uint8)
    large = SignatureTable([Section("a", "random", "rows", 1, 8, len(codes) - 2)], codes)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, hard))
    try:
        with pytest.raises(OSError, match=FILE_NAME):
            large.save(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / FILE_NAME).read_bytes() == before
    assert os.listdir(tmp_path) == [FILE_NAME]


def test_wrong_tokens_are_told():
    table, _ = small_table()
    for ids in ([1], np.array([1]), torch.tensor([1.0])):
        with pytest.raises(TypeError, match="ids must be an int64 or int32 tensor"):
            table.find("a", ids)
    for call in (
        lambda: table.neighbours("a", 1 << 63),
        lambda: table.similarity(("a", 0), ("a", -(1 << 63) - 1)),
    ):
        with pytest.raises(ValueError, match=r"token ids are int64, found -?9223372036854775"):
            call()
    with pytest.raises(ValueError, match="k must be 0 or more, found -1"):
        table.neighbours("a", 0, -1)
    assert table.neighbours("a", 0, 0) == []


def test_a_raw_value_is_a_token():
    raw = to_signed(hash_string("Toy Story"))
    builder = MinHashBuilder({"movie": None}, SignatureConfig("rows", min_support=1))
    builder.update(np.array([[raw], [5]]))
    table = builder.finish()
    among = torch.tensor([raw, 5])
    found = table.neighbours("movie", "Toy Story", among=among)
    assert found == table.neighbours("movie", raw, among=among)
    assert [number for number, _ in found] == [5]


def test_codes_of_unlike_similarities_do_not_compare():
    sections = [
        Section("a", "random", "context", 2, 8, 1), Section("b", "random", "vectors", 2, 8, 1)
    ]  # fmt: skip
    table = SignatureTable(sections, torch.tensor([1, 2, 1, 2, 0, 0], dtype=torch.uint8))
    assert np.isnan(table.similarity(("a", 0), ("b", 0)))
    assert table.similarity(("a", 0), ("a", 0)) == 1


def test_provenance_survives_as_json(tmp_path):
    builder = MinHashBuilder({"a": 2}, SignatureConfig("rows", min_support=1))
    builder.update(np.array([[0], [1]]))
    builder.finish().save(tmp_path)
    assert SignatureTable.load(tmp_path).provenance == json.loads('{"rows": 2}')
