#!/usr/bin/env python3
"""How long `driftline compare` takes, beside others, on the same two files in one run.

    DRIFTLINE=target/release/driftline tests/compare_speed.py            # 1,000,000 × 20 against 100,000 × 20
    tests/compare_speed.py --rows 200000 --columns 5 --runs 3

Takes pyarrow and scipy, and Evidently where it is installed; what is not there is left out and named. Every
peer runs in a process of its own, from reading the Parquet files to its answer; time, processor time and peak
memory are those of the whole process, of several runs the least and the most. Prints a Markdown table.
"""
import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
READ = "import sys, pyarrow.parquet as pq; r, c = (pq.read_table(f).to_pandas() for f in sys.argv[1:3])\n"
PEERS = {
    "reading alone (pyarrow, pandas)": ("pandas", READ),
    "SciPy, ks_2samp alone": ("scipy", READ + """
from scipy.stats import ks_2samp
print([ks_2samp(r[x], c[x]).pvalue for x in r.columns][0])"""),
    "Evidently, DataDriftPreset": ("evidently", READ + """
from evidently import Report
from evidently.presets import DataDriftPreset
print(len(Report([DataDriftPreset()]).run(c, r).json()))"""),
}


def make(path, rows, columns, seed):
    import numpy
    import pyarrow
    import pyarrow.parquet
    random = numpy.random.default_rng(seed)
    table = {f"x{at}": random.normal(size=rows).astype("float32") for at in range(columns)}
    pyarrow.parquet.write_table(pyarrow.table(table), path)


def run(command):
    """Wall seconds, processor seconds and peak MiB of one process."""
    began = time.monotonic()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        _, status, used = os.wait4(process.pid, 0)
        wall = time.monotonic() - began
        if status:
            errors.seek(0)
            raise SystemExit(f"{command[0]} failed: {errors.read().decode()[-500:]}")
    return wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def is_there(module):
    return subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True).returncode == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--reference-rows", type=int, default=100_000)
    parser.add_argument("--columns", type=int, default=20)
    parser.add_argument("--runs", type=int, default=5, help="of each; 1 of what takes longer than 20 s")
    args = parser.parse_args()
    binary = os.environ.get("DRIFTLINE", str(ROOT / "target" / "release" / "driftline"))
    with tempfile.TemporaryDirectory() as folder:
        reference, current = (str(pathlib.Path(folder, name)) for name in ("reference.parquet", "current.parquet"))
        make(reference, args.reference_rows, args.columns, 1)
        make(current, args.rows, args.columns, 2)
        commands = {"driftline compare": [binary, "--quiet", "--format", "json", "compare", reference, current]}
        for name, (module, code) in PEERS.items():
            if is_there(module):
                commands[name] = [sys.executable, "-c", code, reference, current]
            else:
                print(f"left out: {name}, {module} is not installed", file=sys.stderr)
        print(f"{args.rows} rows of {args.columns} numbers against {args.reference_rows}, "
              f"load before {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n")
        print("| what | seconds | processor seconds | peak MiB | times ours |\n| --- | --- | --- | --- | --- |")
        ours = None
        for name, command in commands.items():
            seen = []
            while len(seen) < args.runs and not (seen and seen[0][0] > 20):
                seen.append(run(command))
            low, high = ([pick(one[at] for one in seen) for at in range(3)] for pick in (min, max))
            ours = ours or low[0]
            print(f"| {name} | {low[0]:.2f} to {high[0]:.2f} | {low[1]:.2f} to {high[1]:.2f} | {high[2]:.0f} | "
                  f"{low[0] / ours:.1f} |", flush=True)


if __name__ == "__main__":
    main()
