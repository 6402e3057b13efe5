"""Every method by the name that configs, tables and the command line use."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from lma.allocation import (
    Auto,
    Cafe,
    Cce,
    DeepHash,
    FrequencyCutoff,
    Full,
    Hashed,
    HashingTrick,
    Lma,
    LowDimension,
    Method,
    MixedDimension,
    QuotientRemainder,
    Robe,
    TensorTrain,
)
from lma.allocation.tables import PRECISIONS
from lma.signatures import SignatureConfig
from lma.training.config import ConfigError, check_key
from lma.training.from_contexts import FromContexts


@dataclasses.dataclass(frozen=True)
class MethodSpec:
    """A named method.

    Attributes:
        label: As tables print it.
        allocation: Default allocation config.
        signatures: Default signature config; None for methods without.
        takes_budget: False for the full tables.
        precision: What the weights are served in: "float32", "int8" or "int4".
    """

    label: str
    allocation: Any
    signatures: SignatureConfig | None = None
    takes_budget: bool = True
    precision: str = "float32"

    def configure(self, settings: Mapping[str, Any]) -> tuple[Method, SignatureConfig | None]:
        """The two configs with `settings` put in where they belong."""
        own = {f.name for f in dataclasses.fields(self.allocation)} - {"seed"}
        signed = {f.name for f in dataclasses.fields(SignatureConfig)} if self.signatures else set()
        for key in settings:
            check_key(key, own | signed, f"settings of {self.label}")
        try:
            allocation = dataclasses.replace(
                self.allocation, **{k: v for k, v in settings.items() if k in own}
            )
            signatures = self.signatures and dataclasses.replace(
                self.signatures, **{k: v for k, v in settings.items() if k in signed}
            )
        except TypeError as error:
            raise ConfigError(f"settings of {self.label}: {error}") from error
        return allocation, signatures


# The published form: one memory, blocks of one float, no private rows, a plain hash below the
# support threshold, min-hash of the sets of (125 000 sampled) log rows.
_PUBLISHED = Lma(block_size=1, power=2, private_share=0.0)

METHODS: dict[str, MethodSpec] = {
    "lma": MethodSpec("lma", Auto()),
    "lma-permuted": MethodSpec("lma, codes permuted", Auto(permuted=True)),
    "full": MethodSpec("full", Full(), takes_budget=False),
    "full-from-contexts": MethodSpec("full, from contexts", FromContexts(), takes_budget=False),
    "low-dimension-from-contexts": MethodSpec(
        "low dimension, from contexts", FromContexts(full=False)
    ),
    "hashing-trick": MethodSpec("hashing trick", HashingTrick()),
    "hashing-trick-all": MethodSpec("hashing trick, all tables", HashingTrick(per_table=False)),
    "hashed": MethodSpec("hashed", Hashed()),
    "robe": MethodSpec("robe", Robe()),
    "quotient-remainder": MethodSpec("quotient-remainder", QuotientRemainder()),
    "mixed-dimension": MethodSpec("mixed dimension", MixedDimension()),
    "tensor-train": MethodSpec("tensor train", TensorTrain()),
    "deep-hash": MethodSpec("deep hash", DeepHash()),
    "low-dimension": MethodSpec("low dimension", LowDimension()),
    "frequency-cutoff": MethodSpec("frequency cut-off", FrequencyCutoff()),
    "cutoff-low-dimension": MethodSpec("cut-off, low dimension", FrequencyCutoff(dim=4)),
    "cce": MethodSpec("cce", Cce()),
    "cafe": MethodSpec("cafe", Cafe()),
    "lma-rows": MethodSpec(
        "lma rows",
        _PUBLISHED,
        SignatureConfig(similarity="rows", sample_rows=125_000),
    ),
    "lma-context": MethodSpec("lma context", Lma(), SignatureConfig(similarity="context")),
    "lma-labelled-context": MethodSpec(
        "lma labelled context", Lma(), SignatureConfig(similarity="labelled_context")
    ),
    "lma-learned": MethodSpec(
        "lma learned",
        Lma(block_size=8, hashed_share=0.1),
        SignatureConfig(kind="learned", num_codes=2),
    ),
}


def method_spec(name: str) -> MethodSpec:
    """The method of that name; `ConfigError` names the nearest.

    "+int8" or "+int4" at its end serves its weights in so many bits, and trains with the rounding
    in: "low-dimension+int8".
    """
    name, plus, precision = name.partition("+")
    check_key(name, METHODS, "methods")
    spec = METHODS[name]
    if not plus:
        return spec
    check_key(precision, PRECISIONS, f"precisions of {name}")
    if isinstance(spec.allocation, Auto):
        raise ConfigError(f"method {name!r} chooses its own precision: leave out +{precision}")
    return dataclasses.replace(spec, label=f"{spec.label}, {precision}", precision=precision)
