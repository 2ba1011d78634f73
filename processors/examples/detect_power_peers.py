#!/usr/bin/env python3
"""Windows until others' statistics find what `detect_power` measures, at the same false alarms.

    python processors/examples/detect_power_peers.py            # takes numpy and scipy

Peers judge each window by itself against the reference. Each statistic here gets the threshold that it crosses once
a month on three healthy signals: the quantile 1 - 1/2160 of its values in 40,000 healthy windows, which is what a
peer would have to be tuned to by hand to keep Driftline's default budget; their own defaults alarm far more often.
The reference is 100,000 rows. Statistics as the peers define them: Kolmogorov-Smirnov's D (Evidently up to 1,000 rows,
Alibi Detect, NannyML), Wasserstein's distance (Evidently above), Jensen-Shannon's on Doane's bins (NannyML), for
categories chi-square's and Jensen-Shannon's. Counted are windows until the first crossing, of 400 runs of a week.
"""
import numpy as np
from scipy.spatial.distance import jensenshannon

RUNS, WEEK, MONTH, SIGNALS = 400, 168, 720, 3
HEALTHY = 40_000
random = np.random.default_rng(1)
reference = np.sort(random.normal(size=100_000))
edges = np.histogram_bin_edges(reference, "doane")
edges[0], edges[-1] = -np.inf, np.inf
shares = np.array([1, 1 / 2, 1 / 3, 1 / 4])
shares /= shares.sum()


def ks(x):
    n = x.size
    below = np.searchsorted(reference, x, "right") / reference.size
    at = np.arange(n)
    return max((below - at / n).max(), ((at + 1) / n - below).max())


def wasserstein(x):
    places = ((np.arange(x.size) + 0.5) / x.size * reference.size).astype(int)
    return np.abs(x - reference[places]).mean()


def js(x):
    return jensenshannon(np.histogram(reference, edges)[0], np.histogram(x, edges)[0], base=2)


NUMBERS = {"KS": ks, "Wasserstein": wasserstein, "Jensen-Shannon": js}
CATEGORIES = {
    "chi-square": lambda counts: ((counts - counts.sum() * shares) ** 2 / (counts.sum() * shares)).sum(),
    "Jensen-Shannon": lambda counts: jensenshannon(shares, counts, base=2),
}
NUMBER_CHANGES = {
    "mean +0.1 sd": lambda x: x + 0.1,
    "mean +0.25 sd": lambda x: x + 0.25,
    "mean +0.5 sd": lambda x: x + 0.5,
    "spread × 1.5": lambda x: x * 1.5,
    "°C to °F": lambda x: x * 1.8 + 9.6,
}


def delays(statistic, threshold, window):
    found = []
    for _ in range(RUNS):
        found.append(next((at for at in range(1, WEEK + 1) if statistic(window()) > threshold), None))
    missed = found.count(None)
    return sorted(WEEK + 1 if at is None else at for at in found)[RUNS // 2], missed


def threshold(statistic, window):
    values = [statistic(window()) for _ in range(HEALTHY)]
    return np.quantile(values, 1 - 1 / (MONTH * SIGNALS))


def row(change, rows, name, median, missed):
    median = f"{median}" if median <= WEEK else "not within a week"
    print(f"| {change} | {rows} | {name} | {median} | {missed} of {RUNS} |", flush=True)


print("| change | rows a window | statistic | windows until found, median | missed in a week |\n| --- | --- | --- | --- | --- |")
for rows in (200, 2_000):
    for name, statistic in NUMBERS.items():
        limit = threshold(statistic, lambda: np.sort(random.normal(size=rows)))
        for change, apply in NUMBER_CHANGES.items():
            row(change, rows, name, *delays(statistic, limit, lambda: np.sort(apply(random.normal(size=rows)))))
    for name, statistic in CATEGORIES.items():
        limit = threshold(statistic, lambda: random.multinomial(rows, shares))
        for points in (5, 15):
            moved = shares * (1 - points / 100 / (1 - shares[0]))
            moved[0] = shares[0] + points / 100
            row(f"a share +{points} points", rows, name,
                *delays(statistic, limit, lambda: random.multinomial(rows, moved)))
