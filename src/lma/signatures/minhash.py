"""Min-hash signatures of the tokens of a click log, built in one streaming pass.

P[two min-hashes agree] is the Jaccard similarity of the two sets (Broder 1997); a code is a hash
of the element that won, cut to `code_bits`, so two codes agree with probability
p = psi + (1 - psi) / 2^code_bits. Elements are told apart by 32 bits per code, which adds about
n / 2^33 for two sets of n elements (0.0012 for 10 million): `lma.kernels.reference.minhash`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from lma.hashing import (
    HASH_VERSION,
    combine,
    reduce_range,
    stream_seed,
    stream_seeds,
    table_salt,
    token_keys,
)
from lma.kernels.reference.minhash import NOTHING
from lma.signatures.config import SignatureConfig
from lma.signatures.merging import check_mergeable
from lma.signatures.row_batch import RowBatch, check_first_row, check_labels
from lma.signatures.sections import SectionParts, make_table, most_frequent
from lma.signatures.stats import LogStats, TableStats
from lma.signatures.table import SignatureTable
from lma.signatures.tokens import array_checksum, check_counts, take_in, token_sets

U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

# Streams of the hash family that signatures draw from; codes use 0 ... 255.
STREAM_SAMPLE, STREAM_CODE, STREAM_LABEL = 1 << 20, (1 << 20) + 1, (1 << 20) + 2
STREAM_ELEMENT = (1 << 20) - 1
LANES = 8  # codes that kernels hash at a time: minima are held for a multiple of it
CACHE_LINE = 64


class MinHashBuilder:
    """Min-hashes of tokens, from batches of the log.

    The result is the same, bit for bit, for any sizes of batches, any order of merging and any
    number of threads (`torch.get_num_threads()`).

    Args:
        tables: Vocabulary size of every feature's table, by name, in the order of the batches'
            features; ids must be ranked by support, most frequent first. None: ids are any
            64-bit values, and tokens are told apart as they come.
        config: Similarity, number and width of codes, seed.
        num_signed: Tokens to build a signature for, per table (a plan's decision); all tokens
            of a table that is left out.
        tokens: For tables of size None: the ids to build signatures for, instead of all met.

    Memory: `4 * num_codes + 8` bytes per token of `num_signed`, `num_codes` rounded up to a
    multiple of 8, and 8 bytes per vocabulary token for its support. Of a table of size None every
    token met (or given) counts as one of `num_signed`, and takes about 16 more.
    """

    def __init__(
        self,
        tables: Mapping[str, int | None],
        config: SignatureConfig,
        num_signed: Mapping[str, int] | None = None,
        *,
        tokens: Mapping[str, npt.ArrayLike] | None = None,
    ) -> None:
        if config.kind != "random":
            raise ValueError(
                f"MinHashBuilder: config.kind must be 'random', found {config.kind!r}; "
                "ContextCodeBuilder makes learned codes"
            )
        if config.similarity == "vectors":
            raise ValueError(
                "MinHashBuilder: config.similarity must be of log rows, found 'vectors'; "
                "SimHashBuilder hashes vectors"
            )
        self.config = config
        self.tokens = token_sets(tables, num_signed or {}, tokens or {}, "MinHashBuilder")
        self._given = {name: array_checksum(self.tokens[name].ids()) for name in tokens or {}}
        # Tokens of any ids are ranked at the end; of ranked ids no others have slots.
        self._most = {name: n for name, n in (num_signed or {}).items() if tables[name] is None}
        self.hash_version = HASH_VERSION
        self.tables = dict(tables)
        self._multipliers = code_multipliers(config.seed, -(-config.num_codes // LANES) * LANES)
        self.minima = {
            name: no_minima(t.num_slots, len(self._multipliers)) for name, t in self.tokens.items()
        }
        self.sampled = {name: np.zeros(len(m), np.int64) for name, m in self.minima.items()}
        self.num_rows = 0
        self._numbered_here = False  # some rows got the numbers in which they came
        self._element = stream_seed(config.seed, STREAM_ELEMENT)
        self._salts = np.array([table_salt(name) for name in self.tables], dtype=np.uint64)
        self._told = np.array(config.told(self.tables), dtype=np.bool_)

    def update(
        self,
        values: npt.ArrayLike,
        offsets: npt.ArrayLike | None = None,
        labels: npt.ArrayLike | None = None,
        *,
        first_row: int | None = None,
        total_rows: int | None = None,
    ) -> None:
        """Take in a batch of log rows; a batch that is refused leaves the builder as it was.

        Args:
            values: Token ids: int64 [batch, features], or feature-major [total] with `offsets`.
            offsets: int64 [features * batch + 1], where each bag begins.
            labels: 0 or 1 per row, [batch]; needed by "labelled_context" and
                "positive_context" only.
            first_row: Number of the first row in the whole log, which makes row numbers global
                when several builders share the work; counts on from the last update if None.
            total_rows: Rows of the whole log, needed when `config.sample_rows` is set.

        Raises:
            TypeError, ValueError: Ids, offsets or labels cannot be used; says which and why.
        """
        who, similarity = "MinHashBuilder", self.config.similarity
        batch = RowBatch.of(values, offsets, len(self.tables), who)
        label = None
        if similarity in ("labelled_context", "positive_context"):
            label = check_labels(labels, batch.num_rows, who)
        if self.config.sample_rows is not None:
            if total_rows is None:
                raise ValueError(f"{who}.update: config.sample_rows needs total_rows, found None")
            if total_rows < max(1, batch.num_rows):
                raise ValueError(
                    f"{who}.update: total_rows must be the rows of the whole log, at least the "
                    f"{batch.num_rows} of this batch, found {total_rows}"
                )
        check_first_row(first_row, batch.num_rows, who)
        first = self.num_rows if first_row is None else first_row
        slots = take_in(self.tokens, batch, who)
        self.num_rows += batch.num_rows
        self._numbered_here |= first_row is None and batch.num_rows > 0
        self._make_room()
        rows = np.arange(batch.num_rows)
        if self.config.sample_rows is not None and total_rows is not None:
            rows = rows[self._sampled(rows + first, self.config.sample_rows / total_rows)]
        if label is not None and similarity == "positive_context":
            rows = rows[label[rows] == 1]
            label = None
        self._absorb(batch, slots, rows, first, label)

    def _absorb(
        self, batch: RowBatch, slots: I64, rows: I64, first: int, label: U64 | None
    ) -> None:
        # Here, so that importing lma loads no Numba.
        from lma.kernels.cpu.signatures_minhash import (
            row_elements,
            update_context_minima,
            update_row_minima,
        )

        minima, sampled = list(self.minima.values()), list(self.sampled.values())
        if self.config.similarity == "rows":
            elements = row_elements(self._element, first, batch.num_rows)
            update_row_minima(
                batch.offsets, slots, rows, elements, self._multipliers, minima, sampled
            )
            return
        if label is None:
            states = np.full(batch.num_rows, self._element, np.uint64)
        else:
            states = combine(stream_seed(self.config.seed, STREAM_LABEL), label)
        update_context_minima(
            batch.values, batch.offsets, slots, rows, self._salts, self._told, states,
            self._multipliers, minima, sampled,
        )  # fmt: skip

    def _sampled(self, numbers: I64, share: float) -> npt.NDArray[np.bool_]:
        # A row is kept by a hash of its number, so shards and processes agree on the sample.
        place = reduce_range(
            combine(stream_seed(self.config.seed, STREAM_SAMPLE), numbers), 1 << 30
        )
        return np.asarray(place < share * (1 << 30))

    def _make_room(self) -> None:
        """Minima for tokens met for the first time."""
        for name, tokens in self.tokens.items():
            have = len(self.minima[name])
            if tokens.num_slots > have:
                room = max(tokens.num_slots, have * 3 // 2)
                minima = no_minima(room, len(self._multipliers))
                minima[:have] = self.minima[name]
                sampled = np.zeros(room, np.int64)
                sampled[:have] = self.sampled[name]
                self.minima[name], self.sampled[name] = minima, sampled

    def merge(self, other: MinHashBuilder) -> MinHashBuilder:
        """Add what another builder saw; commutative and associative. Returns self.

        Raises:
            ValueError: They differ in a setting; or row numbers decide something, and rows of
                both were numbered from 0 on for want of `first_row`.
        """
        check_mergeable(self, other)
        if self._numbered_here and other._numbered_here:
            self._refuse_numbers()
        self._numbered_here |= other._numbered_here
        for name, tokens in self.tokens.items():
            slots = tokens.merge(other.tokens[name])
            self._make_room()
            known = slots >= 0
            theirs = other.minima[name][: len(slots)][known]
            mine = self.minima[name]
            mine[slots[known]] = np.minimum(mine[slots[known]], theirs)
            self.sampled[name][slots[known]] += other.sampled[name][: len(slots)][known]
        self.num_rows += other.num_rows
        return self

    def settings(self) -> dict[str, object]:
        """What builders must have in common to be merged."""
        slots = {n: t.num_slots for n, t in self.tokens.items() if self.tables[n] is not None}
        return {
            "config": self.config,
            "tables": list(self.tables.items()),
            "num_signed": {**slots, **self._most},
            "tokens": self._given,
            "hash_version": self.hash_version,
        }

    def reduce(self, over_all: Callable[[npt.NDArray[np.generic], str], None]) -> None:
        """Merge with the same builder of other processes (`all_reduce`).

        Args:
            over_all: over_all(array, how) changes an array in place to its "min" or "sum" over
                all processes.
        """
        rows = np.array([self.num_rows, self._numbered_here])
        over_all(rows, "sum")
        if rows[1] > 1:
            self._refuse_numbers()
        self.num_rows, self._numbered_here = int(rows[0]), bool(rows[1])
        for name, tokens in self.tokens.items():
            over_all(tokens.supports, "sum")
            over_all(self.minima[name], "min")
            over_all(self.sampled[name], "sum")

    def _refuse_numbers(self) -> None:
        if self.config.similarity == "rows" or self.config.sample_rows is not None:
            raise ValueError(
                "MinHashBuilder: two builders numbered their rows from 0 on, so that different "
                "rows have one number; give every update its first_row, the number of its first "
                "row in the whole log"
            )

    def stats(self) -> LogStats:
        """Support histograms of what was seen so far, for `lma.plan`."""
        return LogStats.of([TableStats.of_supports(n, t.supports) for n, t in self.tokens.items()])

    def finish(
        self, num_signed: Mapping[str, int] | None = None, *, keep_ids: bool = False
    ) -> SignatureTable:
        """Freeze into a `SignatureTable`: `prefix` indexes, `fingerprint` for tables of any ids.

        Args:
            num_signed: Tokens to keep per table, at most those built. None keeps the leading
                tokens whose support reaches `config.min_support`.
            keep_ids: Also keep the ids of tables of any ids, 8 bytes per token in a file of their
                own that no model loads, for `neighbours`.
        """
        check_counts(num_signed or {}, self.tables, "MinHashBuilder.finish")
        parts = []
        for name, tokens in self.tokens.items():
            wanted = None if num_signed is None else num_signed.get(name, tokens.num_slots)
            slots = most_frequent(tokens, wanted, self.config.min_support)
            slots = slots[: self._most.get(name)]
            if len(slots):
                ids = tokens.ids()[slots]
                codes = self._codes(name, ids, slots)
                parts.append(SectionParts.of(tokens, ids, codes, self.config, keep_ids=keep_ids))
        return make_table(parts, self.config.seed, {"rows": self.num_rows})

    def _codes(self, name: str, ids: I64, slots: I64) -> U16:
        """Codes of the winners; a token whose sample is too small hashes its own key instead.

        Such a token shares places by chance alone, as an unsigned one does.
        """
        from lma.kernels.cpu.signatures_minhash import winning_codes

        keys = token_keys(np.uint64(table_salt(name)), ids)
        return winning_codes(
            self.minima[name],
            self.sampled[name],
            slots,
            combine(self._element, keys),
            self._multipliers[: self.config.num_codes],
            min_support=self.config.min_support,
            state=stream_seed(self.config.seed, STREAM_CODE),
            code_bits=self.config.code_bits,
        )


def code_multipliers(seed: int, num_codes: int) -> U32:
    """m_c of every code: 24 random bits over the code's number, so that all differ; uint32."""
    random = stream_seeds(seed, num_codes).astype(np.uint32) & np.uint32(0xFFFFFF00)
    return random | np.arange(num_codes, dtype=np.uint32)


def no_minima(num_tokens: int, num_codes: int) -> U32:
    """Minima of empty sets, uint32 [tokens, codes]; of 16 codes, each token's are a cache line."""
    spare = CACHE_LINE // 4
    memory = np.empty(num_tokens * num_codes + spare, np.uint32)
    first = -memory.ctypes.data % CACHE_LINE // 4
    minima = memory[first : first + num_tokens * num_codes].reshape(num_tokens, num_codes)
    minima.fill(NOTHING)
    return minima


__all__ = ["MinHashBuilder"]
