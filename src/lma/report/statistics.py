"""Mean, standard error and Student's t over the seeds of a cell."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What the runs of a cell say about one number.

    Attributes:
        mean: Mean of the finite values; NaN if there are none.
        standard_error: Sample deviation (n - 1) over the root of n; NaN below two values.
        n: Number of finite values.
    """

    mean: float
    standard_error: float
    n: int

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Confidence interval of the mean by Student's t; NaN below two values.

        >>> low, high = Estimate(mean=0.8, standard_error=0.001, n=3).interval()
        >>> round(low, 4), round(high, 4)
        (0.7957, 0.8043)
        """
        if self.n < 2:
            return math.nan, math.nan
        half = student_t_quantile((1 + level) / 2, self.n - 1) * self.standard_error
        return self.mean - half, self.mean + half


def estimate(values: Iterable[float]) -> Estimate:
    """Mean, standard error and count of the finite values.

    >>> estimate([1.0, 3.0])
    Estimate(mean=2.0, standard_error=1.0, n=2)
    """
    finite = [float(value) for value in values if math.isfinite(value)]
    n = len(finite)
    if n == 0:
        return Estimate(math.nan, math.nan, 0)
    mean = math.fsum(finite) / n
    if n == 1:
        return Estimate(mean, math.nan, 1)
    variance = math.fsum((value - mean) ** 2 for value in finite) / (n - 1)
    return Estimate(mean, math.sqrt(variance / n), n)


def student_t_quantile(probability: float, degrees: int) -> float:
    """The value below which a t variable of `degrees` degrees of freedom falls.

    Solved by bisection on the angle atan(t / sqrt(degrees)), in which the distribution of a
    whole number of degrees is a finite sum (Abramowitz and Stegun 26.7.3 and 26.7.4).

    Args:
        probability: In (0, 1).
        degrees: At least 1.

    >>> round(student_t_quantile(0.975, 2), 4)
    4.3027
    """
    if not 0 < probability < 1:
        raise ValueError(f"probability must be inside (0, 1), got {probability!r}")
    if degrees < 1:
        raise ValueError(f"degrees must be at least 1, got {degrees!r}")
    if probability < 0.5:
        return -student_t_quantile(1 - probability, degrees)
    wanted = 2 * probability - 1
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        if _mass_between(middle, degrees) < wanted:
            low = middle
        else:
            high = middle
    return math.sqrt(degrees) * math.tan((low + high) / 2)


def _mass_between(angle: float, degrees: int) -> float:
    """P(|T| < sqrt(degrees) tan(angle))."""
    cosine, sine = math.cos(angle), math.sin(angle)
    odd = degrees % 2 == 1
    if degrees == 1:
        return 2 * angle / math.pi
    term = cosine if odd else 1.0
    total = term
    for k in range(3 if odd else 2, degrees - 1, 2):
        term *= cosine * cosine * (k - 1) / k
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
