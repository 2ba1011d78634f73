#!/usr/bin/env python3
"""Train the example's classifier: which of six gases do sixteen chemical sensors smell?

The data are the "Gas Sensor Array Drift" measurements (Vergara et al. 2012, UCI 224): 128 features
(16 sensors x 8), taken in batches over 36 months while the sensors aged. The model only sees the
first batch, as a model that is shipped to a device would, and grows wrong as the sensors drift.

What it does:

1. reads the table (CSV with the columns batch, gas, s1f1 ... s16f8; .zst through the zstd program),
2. splits batch 1 in two halves, each with the same share of every gas (fixed seed),
3. fits a standardised logistic regression on the first half,
4. writes the model as ONNX, and
5. writes the other half, which the model has not seen, as reference.csv: a reference made of rows
   that the model was fitted on would make it look surer and better than it is, and every later
   window would differ from it.

It also writes the later batches as stream.csv, in order, for `driftline replay`. Neither of the two
CSV files belongs in the repository.
"""

import argparse
import csv
import io
import pathlib
import subprocess
import sys

import numpy as np
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

HERE = pathlib.Path(__file__).resolve().parent
DATA = HERE.parent.parent.parent / "shared" / "data" / "gas_sensor_drift.csv.zst"
SEED = 20_240_101


def read(path):
    """Header and rows, as text, so that what is written again is what was read."""
    if path.suffix == ".zst":
        text = subprocess.run(["zstd", "-dc", path], check=True, capture_output=True).stdout.decode()
    else:
        text = path.read_text()
    rows = list(csv.reader(io.StringIO(text)))
    return rows[0], rows[1:]


def write(path, header, rows):
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def arrays(rows):
    table = np.array(rows, dtype=np.float64)
    return table[:, 0].astype(int), table[:, 1].astype(int), table[:, 2:].astype(np.float32)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, default=DATA)
    parser.add_argument("--out", type=pathlib.Path, default=HERE)
    args = parser.parse_args()
    if not args.data.exists():
        sys.exit(f"{args.data} is not there: name the table with --data")

    header, rows = read(args.data)
    first = [row for row in rows if row[0] == "1"]
    later = [row for row in rows if row[0] != "1"]
    fit, held_out = train_test_split(
        first, test_size=0.5, random_state=SEED, stratify=[row[1] for row in first]
    )
    _, gas, features = arrays(fit)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=5_000))
    model.fit(features, gas)

    options = {id(model): {"zipmap": False}}
    onnx = to_onnx(model, features[:1], options=options, target_opset={"": 17, "ai.onnx.ml": 3})
    (args.out / "gas.onnx").write_bytes(onnx.SerializeToString())
    write(args.out / "reference.csv", header, held_out)
    write(args.out / "stream.csv", header, later)

    print(f"fitted on {len(fit)} rows of batch 1; accuracy")
    print(f"  held out   {model.score(*arrays(held_out)[:0:-1]):.4f}  ({len(held_out)} rows)")
    batches, gas, features = arrays(later)
    for batch in np.unique(batches):
        chosen = batches == batch
        score = model.score(features[chosen], gas[chosen])
        print(f"  batch {batch:<4} {score:.4f}  ({chosen.sum()} rows)")


if __name__ == "__main__":
    main()
