"""What learned codes give away of the labels they were made of, on a log with random labels.

    python benchmarks/signatures/label_leak.py

4,000 users of 3 rows and 1,000 of 100 rows rate 50 movies at random. A model with one weight per
(user's code, movie) is fitted to the training rows; its AUC *on those rows* is compared with that
of the same codes dealt out anew among the users, which carry nothing.
"""

from __future__ import annotations

import json

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from lma.signatures import ContextCodeBuilder, SignatureConfig

MOVIES = 50


def main() -> None:
    rng = np.random.default_rng(0)
    support = np.concatenate([np.full(1000, 100), np.full(4000, 3)])
    user = np.repeat(np.arange(len(support)), support)
    ids = np.stack([user, rng.integers(0, MOVIES, len(user))], 1)[rng.permutation(len(user))]
    labels = rng.integers(0, 2, len(user))
    rare = support[ids[:, 0]] == 3
    for similarity in ("context", "positive_context", "labelled_context"):
        config = SignatureConfig(similarity, kind="learned", num_codes=2, code_bits=4, dim=8)
        builder = ContextCodeBuilder({"user": len(support), "movie": MOVIES}, config)
        for _ in range(builder.num_passes):
            builder.update(ids, None, labels)
            builder.next_pass()
        table = builder.finish({"movie": 0})
        codes = table.codes_of("user", torch.arange(len(support))).numpy()
        cell = codes[:, 0] * 16 + codes[:, 1]
        found = {"similarity": similarity}
        for name, group in (("codes", cell), ("dealt out anew", rng.permutation(cell))):
            key = group[ids[:, 0]] * MOVIES + ids[:, 1]
            total = np.bincount(key, labels, 256 * MOVIES)
            score = ((total + 0.5) / (np.bincount(key, minlength=256 * MOVIES) + 1))[key]
            for who, chosen in (("3 rows", rare), ("100 rows", ~rare)):
                auc = roc_auc_score(labels[chosen], score[chosen])
                found[f"{name}, users of {who}"] = round(float(auc), 3)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
