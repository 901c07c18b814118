"""Published methods as functions of frozen states: rows of the leaderboard, and models for one's own.

Each is its source (`runs.method`): a line changed makes another run. Answers are P(y = 1), (m,); see
`runs.method.method` for the arguments. Chapter: leaderboard.
"""

# ruff: noqa: ANN001, ANN201
# mypy: disable-error-code="no-untyped-def"

from w2s_lib.runs.method import method


@method
def surest_labels(states, labels, unlabeled, seed, *, share=0.5):
    """A line through the labels that their supervisor is surest of, as many of either verdict."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    order, n = np.argsort(labels, kind="stable"), round(share * len(labels) / 2)
    rows = np.concatenate([order[:n], order[-n:]])
    line = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
    return line.fit(states[rows], np.arange(2 * n) >= n).predict_proba(unlabeled)[:, 1]


@method
def stopped_early(states, labels, unlabeled, seed, *, rate=0.03, steps=500):
    """A line by gradient descent, as it was when it met a fifth of the weak labels best."""
    import numpy as np

    mean, spread = states.mean(axis=0), states.std(axis=0) + 1e-6
    x, held = (states - mean) / spread, np.random.default_rng(seed).random(len(states)) < 0.2
    line, best, kept = np.zeros(x.shape[1]), np.inf, np.zeros(x.shape[1])
    for _ in range(steps):
        p = 1 / (1 + np.exp(-(x @ line)))
        off = -(labels * np.log(p + 1e-9) + (1 - labels) * np.log(1 - p + 1e-9))[held].mean()
        if off < best:
            best, kept = off, line
        line = line + rate * x[~held].T @ (labels - p)[~held] / (~held).sum()
    return 1 / (1 + np.exp(-((unlabeled - mean) / spread) @ kept))


@method
def self_training(states, labels, unlabeled, seed, *, rounds=3):
    """A line; then, again and again, one through the surest half of its own verdicts on all texts."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    pool, rows = np.concatenate([states, unlabeled]), np.argsort(labels, kind="stable")
    line = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
    for _ in range(rounds + 1):
        line.fit(pool[rows], np.arange(len(rows)) >= len(rows) // 2)  # rows: from no to yes
        order, n = np.argsort(line.decision_function(pool), kind="stable"), len(pool) // 4
        rows = np.concatenate([order[:n], order[-n:]])
    return line.predict_proba(unlabeled)[:, 1]
