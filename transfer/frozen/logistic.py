"""Multinomial logistic regression: mean cross-entropy + alpha / 2 times the squared weights, by L-BFGS on few products.

scikit-learn's LogisticRegression minimizes the same with alpha = 1 / (C N). This is faster for three reasons: single
precision, several problems on the same rows in one product (the folds of a cross-validation), and coordinates in which
the objective is nearly round, so that a solution takes 10 to 50 products instead of 80 to 300.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Of the cross-entropy along a logit, p (1 - p): 1/4 at most (Boehning 1992, https://doi.org/10.1007/BF00048682). For
# the conditioning only: of 0.5, 0.2, 0.1, 0.05 and 0.02 this took fewest steps on emoji.
CURVATURE = 0.2
MEMORY = 10  # pairs that L-BFGS keeps; more took as many steps
# Of the largest variance: below it an axis holds rounding errors of float32 (squared, about 1e-12). A weight on such
# errors means nothing to the training rows, and much to a row that does have something along that axis.
ROUNDING = 1e-9
# Products of an objective, up to which one thread makes it: L-BFGS's own small operations wait for threads that BLAS
# spins up for each. Two cores, a whole probe by two threads / by one: 400 images of 10 classes 1.3 / 0.3 s, 458 of 44
# 2.6 / 0.5, 2,287 of 9 21.6 / 8.3, 3,000 of 40 24.9 / 16.2; beside other work 400 images took minutes.
ALONE = 2 * 10**9

Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class Rows:
    """N training rows along their principal axes, R of them: all that the rows span, in which the solution lies (the
    representer theorem).

    Attributes:
        values: (N, R).
        axes: (F, R), orthonormal; values = rows @ axes.
        variances: (R,) mean square along each axis.
    """

    values: Matrix
    axes: Matrix
    variances: Matrix


def principal(rows: Matrix) -> Rows:
    """Turn (N, F) rows to their principal axes."""
    if len(rows) < rows.shape[1]:
        spanning, triangle = np.linalg.qr(rows.T)  # (F, N) orthonormal, (N, N)
        inner = principal(np.ascontiguousarray(triangle.T))
        return Rows(inner.values, spanning @ inner.axes, inner.variances)
    from scipy.linalg import eigh

    _, axes = eigh(rows.T @ rows, driver="evd", check_finite=False)
    values = rows @ axes
    variances = np.einsum("nr,nr->r", values, values) / np.float32(len(values))
    real = variances > ROUNDING * variances.max(initial=0)
    return Rows(np.ascontiguousarray(values[:, real]), axes[:, real], variances[real])


def solve(
    rows: Rows,
    labels: NDArray[np.int64],
    weights: Matrix,
    *,
    classes: int,
    alpha: float,
    start: NDArray[np.float64] | None = None,
    tolerance: float,
    steps: int,
) -> NDArray[np.float64]:
    """Solve J regressions side by side, each over its own selection of the rows.

    Args:
        labels: (N,) class indices.
        weights: (N, J), each column the rows' shares in one mean, 0 for a row that is left out.
        alpha: of the penalty; intercepts are free.
        start: an earlier solution.
        tolerance: of the largest entry of the gradient, in the coordinates of this method.
        steps: of L-BFGS, at most.

    Returns:
        (J, K, R + 1) coefficients along the axes, the intercept last.
    """
    from scipy.optimize import fmin_l_bfgs_b
    from threadpoolctl import threadpool_limits

    values, (count, problems) = rows.values, weights.shape
    width = values.shape[1]
    every = np.arange(count)
    # in u = W / scale the curvature is near 1 along every axis
    scale = (1 / np.sqrt(CURVATURE * rows.variances + alpha)).astype(np.float32)

    def objective(u: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        flat = u.reshape(problems * classes, width + 1).astype(np.float32)
        w = flat[:, :width] * scale
        logits = (values @ w.T + flat[:, width]).reshape(count, problems, classes)
        logits -= logits.max(axis=2, keepdims=True)
        own = logits[every, :, labels]  # (N, J)
        p = np.exp(logits, out=logits)
        total = p.sum(axis=2)
        loss = float((weights * (np.log(total) - own)).sum(dtype=np.float64))
        loss += alpha / 2 * float(np.square(w).sum(dtype=np.float64))
        p *= (weights / total)[:, :, None]
        p[every, :, labels] -= weights  # d loss / d logits
        slope = p.reshape(count, problems * classes)
        gradient = np.empty_like(u).reshape(problems * classes, width + 1)
        gradient[:, :width] = (slope.T @ values + alpha * w) * scale
        gradient[:, width] = slope.sum(axis=0)
        return loss, gradient.ravel()

    size = np.append(scale, 1).astype(np.float64)
    u = np.zeros((problems, classes, width + 1)) if start is None else start / size
    small = values.size * problems * classes <= ALONE
    with threadpool_limits(1 if small else None, user_api="blas"):
        u, _, _ = fmin_l_bfgs_b(
            objective, u.ravel(), m=MEMORY, factr=0, pgtol=tolerance, maxiter=steps, maxfun=2 * steps
        )
    solution: NDArray[np.float64] = u.reshape(problems, classes, width + 1) * size
    return solution


def logits(rows: Matrix, solution: NDArray[np.float64]) -> Matrix:
    """(N, R) rows along the axes to the (N, J, K) logits of J regressions."""
    problems, classes, width = solution.shape
    flat = solution.reshape(problems * classes, width).astype(np.float32)
    found: Matrix = (rows @ flat[:, :-1].T + flat[:, -1]).reshape(len(rows), problems, classes)
    return found
