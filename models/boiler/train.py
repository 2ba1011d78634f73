"""Trains the model of the simulated boilers and writes boiler.onnx.

The world is that of `simulator/src/world.rs`: features are mean + sd * z, where z adds up a cycle over
the day, a difference of the unit, and noise; the truth is drawn from a logistic function of z. A
logistic regression on standardised features is the best that a linear model can do there.

    pip install scikit-learn skl2onnx
    python train.py
"""

from pathlib import Path

import numpy as np
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

# name, mean, sd, amplitude of the day's cycle, weight: as in world.rs
QUANTITIES = [
    ("temperature", 62.0, 4.0, 0.5, 2.4),
    ("vibration", 2.8, 0.35, 0.2, 1.8),
    ("pressure", 5.5, 0.25, 0.1, -1.4),
    ("current", 8.0, 0.9, 0.4, 1.0),
]
OFFSET, UNIT_SD, NOISE_SD = -1.5, 0.3, 0.9
ROWS = 200_000

rng = np.random.default_rng(7)
day = rng.uniform(0, 2 * np.pi, ROWS)
z = np.column_stack(
    [daily * np.sin(day) + rng.normal(0, np.hypot(UNIT_SD, NOISE_SD), ROWS) for *_, daily, _ in QUANTITIES]
)
weights = np.array([weight for *_, weight in QUANTITIES])
truth = (rng.uniform(size=ROWS) < 1 / (1 + np.exp(-(z @ weights + OFFSET)))).astype(np.int64)
features = np.column_stack([mean + sd * z[:, j] for j, (_, mean, sd, _, _) in enumerate(QUANTITIES)])

model = make_pipeline(StandardScaler(), LogisticRegression()).fit(features, truth)
print(f"accuracy {model.score(features, truth):.3f} on {ROWS} rows")
onnx = to_onnx(model, features[:1].astype(np.float32), options={"zipmap": False})
Path(__file__).with_name("boiler.onnx").write_bytes(onnx.SerializeToString())
