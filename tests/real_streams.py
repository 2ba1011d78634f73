#!/usr/bin/env python3
"""Drift in recorded streams whose truth is known, found by the commands that users have.

    tests/real_streams.py [--binary target/release/driftline] [--parts abrupt,control,electricity,variants]

- abrupt: five streams of 40,000 rows in which the relation of inputs and class changes at 10,000, 20,000 and 30,000. A
  classifier learns from the first 1,000 rows, `driftline changes` reads its errors, and where that tells of a change the
  classifier learns anew from the next 1,000. Found is a change that is told before the next one comes; anything else that
  is told is false. Inputs move where the generator drew the classes evenly, whatever the concept was (sea, sine,
  stagger), and stand elsewhere: `driftline compare` must say so, quarter by quarter.
- control: luxembourg, 1,901 rows without useful drift, in the same way; detectors should be silent.
- electricity: elec2, where three columns stand still up to row 17,424 and move from then on.
- variants: anomaly scores of the same clips by five exports of one model, of which two are equal; `driftline compare` on
  the scores alone.

Reads `../shared/data`, or `DRIFTLINE_SHARED`. Prints tables (docs/quality.md has the last ones); exit code 1 when what the tables
promise does not hold, 2 without the data.
"""
import argparse
import bisect
import collections
import csv
import gzip
import itertools
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
DETECTORS = ["adwin", "page_hinkley", "cusum", "ddm", "eddm", "rddm", "hddm_a", "hddm_w", "fhddm", "kswin", "stepd",
             "ecdd", "seed", "bocpd"]
CHANGES = [10_000, 20_000, 30_000]
# Rows that a classifier learns from, and bins that it cuts a number into.
LEARN, BINS = 1_000, 8
# Standard errors from which on a mean has moved: what chance does in sixty pairs of samples is below 4.
# Below the other it stands, by its mean at least; compare looks at the shape as well.
MOVED, STOOD = 4.2, 2.0
# Columns of elec2 that stand still up to this row.
STILL, STILL_COLUMNS = 17_424, ["vicprice", "vicdemand", "transfer"]
# Parameters for errors, which are 0 or 1.
ERRORS = {"bocpd": ["model=bernoulli"]}
# ECDD tells of a change now and then where there is none, by its definition: every 400 rows on average.
LOUD = {"ecdd"}
PARTS = ["abrupt", "control", "electricity", "variants"]


def load(path):
    with gzip.open(path, "rt") as file:
        reader = csv.reader(file)
        head = next(reader)
        return head, list(reader)


class Run:
    def __init__(self, binary, data):
        self.binary, self.data, self.wrong = binary, data, []

    def json(self, *arguments, given=None):
        done = subprocess.run([self.binary, *map(str, arguments), "--format", "json"], input=given, text=True,
                              stdout=subprocess.PIPE, check=True)
        return json.loads(done.stdout)

    def changes(self, detector, values, *params):
        """Rows at which a detector tells of a change, from 0."""
        given = "\n".join(map(str, values))
        params = [word for param in params for word in ("--param", param)]
        return self.json("changes", "--detector", detector, *params, "-", given=given)["drift"]

    def changes_of_errors(self, detector, errors):
        # FHDDM reads what is right. BOCPD takes numbers for normal unless it is told that they are 0 or 1.
        right = detector == "fhddm"
        return self.changes(detector, [1 - error for error in errors] if right else errors, *ERRORS.get(detector, []))

    def demand(self, holds, text):
        if not holds:
            self.wrong.append(text)


# --- a classifier -----------------------------------------------------------------------------------


def codes(rows):
    """Features as small integers: values as they are where they are few, else eighths of the first 1,000 rows."""
    columns = []
    for at in range(len(rows[0]) - 1):
        values = [float(row[at]) for row in rows]
        few = sorted(set(values))
        if len(few) > BINS:
            first = sorted(values[:LEARN])
            few = [first[len(first) * k // BINS] for k in range(1, BINS)]
            columns.append([bisect.bisect(few, value) for value in values])
        else:
            columns.append([few.index(value) for value in values])
    return list(zip(*columns))


class Classifier:
    """Naive Bayes over pairs of features where they are few, else over single ones."""

    def __init__(self, features, labels):
        width = len(features[0])
        together = 2 if width <= 4 else 1
        self.groups = list(itertools.combinations(range(width), together))
        self.classes = collections.Counter(labels)
        self.counts = collections.Counter()
        for row, label in zip(features, labels):
            self.counts.update((label, *key) for key in self.keys(row))

    def keys(self, row):
        return [(group, tuple(row[at] for at in group)) for group in self.groups]

    def predict(self, row):
        keys = self.keys(row)

        def score(label):
            rows = self.classes[label]
            seen = (math.log((self.counts[(label, *key)] + 0.2) / (rows + 1)) for key in keys)
            return math.log(rows) + sum(seen)

        return max(sorted(self.classes), key=score)


def told(run, detector, features, labels):
    """Rows at which a detector tells of a change, when the classifier learns anew after each."""
    found, begin = [], 0
    while begin + LEARN < len(labels):
        end = begin + LEARN
        classifier = Classifier(features[begin:end], labels[begin:end])
        errors = [int(classifier.predict(row) != label) for row, label in zip(features[end:], labels[end:])]
        changes = run.changes_of_errors(detector, errors)
        if not changes:
            break
        begin = end + changes[0] + 1
        found.append(begin - 1)
    return found


# --- the parts --------------------------------------------------------------------------------------


def split(found, rows):
    """Delays of the changes that were found, and how many of what was told are false."""
    delays, ends = {}, [*CHANGES[1:], rows]
    false = 0
    for at in found:
        of = [change for change, end in zip(CHANGES, ends) if change <= at < end]
        if of and of[0] not in delays:
            delays[of[0]] = at - of[0]
        else:
            false += 1
    return sorted(delays.values()), false


def abrupt(run):
    streams = {}
    for path in sorted((run.data / "synthetic_abrupt").glob("*.csv.gz")):
        head, rows = load(path)
        name = path.name.split("_")[0]
        streams[name] = (codes(rows), [row[-1] for row in rows])
        quiet(run, name, head, rows)
    print("\n| detector | " + " | ".join(f"{name}: found, delays, false" for name in streams) + " |")
    print("| --- |" + " --- |" * len(streams))
    best = collections.Counter()
    for detector in DETECTORS:
        cells = []
        for name, (features, labels) in streams.items():
            delays, false = split(told(run, detector, features, labels), len(labels))
            best[name] = max(best[name], len(delays))
            cells.append(f"{len(delays)}, {' '.join(map(str, delays)) or '–'}, {false}")
        print(f"| {detector} | " + " | ".join(cells) + " |", flush=True)
    for name in streams:
        run.demand(best[name] == len(CHANGES), f"no detector finds all three changes of {name}")


def quiet(run, name, head, rows):
    """Inputs drift from quarter to quarter where their means did, and nowhere else."""
    quarter = len(rows) // 4
    parts = [rows[at * quarter:(at + 1) * quarter] for at in range(4)]
    with tempfile.TemporaryDirectory() as work:
        files = []
        for at, part in enumerate(parts):
            files.append(pathlib.Path(work, f"{at}.csv"))
            with open(files[-1], "w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(head[:-1])
                writer.writerows(row[:-1] for row in part)
        drifted = {(at, column) for at in range(3) for column in drifted_columns(run, files[at], files[at + 1])}
    errors = {(at, column): standard_errors(*([float(row[place]) for row in part] for part in parts[at:at + 2]))
              for at in range(3) for place, column in enumerate(head[:-1])}
    moved = {pair for pair, z in errors.items() if z > MOVED}
    quiet_most = max((z for pair, z in errors.items() if pair not in drifted), default=0)
    print(f"{name}: of {len(errors)} pairs of quarters and columns {len(drifted)} drifted, {len(moved)} with a mean that moved "
          f"by {MOVED} standard errors; of the others at most {quiet_most:.1f}", flush=True)
    run.demand(moved <= drifted, f"inputs of {name}: {sorted(moved - drifted)} moved, and compare does not say so")
    stood = sorted(pair for pair in drifted if errors[pair] < STOOD)
    run.demand(not stood, f"inputs of {name}: {stood} drifted, though their means stand")


def standard_errors(one, other):
    """By how many standard errors the means of two samples differ."""
    means = [statistics.fmean(values) for values in (one, other)]
    variance = sum(statistics.variance(values) / len(values) for values in (one, other))
    return abs(means[0] - means[1]) / math.sqrt(variance)


def drifted_columns(run, one, other):
    compared = run.json("compare", one, other)
    return [column["column"] for column in compared["columns"] if column["drifted"]]


def control(run):
    _, rows = load(run.data / "luxembourg.csv.gz")
    features, labels = codes(rows), [row[-1] for row in rows]
    loud = {}
    for detector in DETECTORS:
        found = told(run, detector, features, labels)
        if found:
            loud[detector] = found
    print(f"\nluxembourg: {len(DETECTORS) - len(loud)} of {len(DETECTORS)} detectors are silent"
          + "".join(f"; {name} tells of {found}" for name, found in loud.items()), flush=True)
    run.demand(loud.keys() <= LOUD, f"luxembourg: {', '.join(loud)} not silent")


def electricity(run):
    head, rows = load(run.data / "elec2.csv.gz")
    print("\n| column | " + " | ".join(DETECTORS[:3]) + " | compare, the 500 rows after with those before |")
    print("| --- |" + " --- |" * 4)
    soon, missed = [], []
    for column in STILL_COLUMNS:
        values = [row[head.index(column)] for row in rows]
        firsts = [(run.changes(detector, values) or [None])[0] for detector in DETECTORS[:3]]
        soon += [at for at in firsts if at is not None and 0 <= at - STILL < 500]
        with tempfile.TemporaryDirectory() as work:
            files = [pathlib.Path(work, name) for name in ("before.csv", "after.csv")]
            for file, some in zip(files, (values[:STILL], values[STILL:STILL + 500])):
                file.write_text("\n".join([column, *some]) + "\n")
            drifted = drifted_columns(run, *files)
        missed += [] if drifted else [column]
        print(f"| {column} | " + " | ".join("–" if at is None else f"{at - STILL:+d}" for at in firsts)
              + f" | {'drifted' if drifted else 'no drift'} |", flush=True)
    run.demand(soon, "no detector finds elec2's change of inputs within 500 rows")
    run.demand(not missed, f"compare does not see elec2's change of {', '.join(missed)}")


def variants(run):
    exports = ["anomaly_score", "tflite_anomaly_score", "tflite_quant_anomaly_score", "tflite_quant_fullint_anomaly_score",
               "tflite_quant_fullint_micro_anomaly_score"]
    print()
    with tempfile.TemporaryDirectory() as work:
        for machine in ("01", "02"):
            files = []
            for export in exports:
                rows = (run.data / "toycar" / f"{export}_ToyCar_id_{machine}.csv").read_text().split()
                files.append(pathlib.Path(work, f"{export}_{machine}.csv"))
                files[-1].write_text("score\n" + "\n".join(row.split(",")[1] for row in rows) + "\n")
            for one, other in itertools.combinations(range(len(exports)), 2):
                compared = run.json("compare", files[one], files[other])["columns"][0]
                equal = files[one].read_text() == files[other].read_text()
                p = min(it["p_value"] for it in compared["measures"] if it["p_value"] is not None)
                said = "drifted" if compared["drifted"] else "no drift"
                print(f"toycar {machine}: {exports[one]} against {exports[other]}: {said}, p {p:.1e}"
                      + (" (equal)" if equal else ""), flush=True)
                if equal or one == 0:
                    run.demand(compared["drifted"] != equal, f"toycar {machine}: {exports[other]} is called {said}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--binary", default=str(ROOT / "target" / "release" / "driftline"))
    parser.add_argument("--parts", default=",".join(PARTS), help="some of %(default)s")
    args = parser.parse_args()
    data = pathlib.Path(os.environ.get("DRIFTLINE_SHARED") or ROOT.parent / "shared") / "data"
    if not data.is_dir():
        print(f"SKIPPED: {data} is not there; DRIFTLINE_SHARED names another place", file=sys.stderr)
        return 2
    run = Run(args.binary, data)
    functions = {"abrupt": abrupt, "control": control, "electricity": electricity, "variants": variants}
    for part in args.parts.split(","):
        functions[part](run)
    for text in run.wrong:
        print(f"NOT SO: {text}")
    return 1 if run.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
