"""Suites for tests: built from components that need no weights and take milliseconds."""

from __future__ import annotations

import sys
from pathlib import Path

EXTERNAL = Path(__file__).parent / "external_component"
if str(EXTERNAL) not in sys.path:
    sys.path.append(str(EXTERNAL))

# Line numbers are part of what the tests check: keep one key a line.
TOY = """\
name: toy
version: 1
seed: 24
data:
  targets: {kind: python, target: "my_pkg.my_module:Targets", args: {values: 5}}
  shapes:
    kind: shapes
    resolution: 32
generators:
  linear: {kind: linear, dim: 4, resolution: 8}
  stripes:
    kind: python
    target: my_pkg.my_module:build
    args:
      contrast: 0.5
conditioners:
  near: {kind: quadratic, resolution: 8}
  text: {kind: clip}
translators:
  default: {kind: tr0n, num_pairs: 100, steps: 10}
samplers:
  prior: {kind: prior}
  langevin: {kind: langevin, steps: 3}
  tr0n:
    kind: tr0n
    steps: 4
protocol: {resolution: 8, num_reference: 20}
samples: {num: 12, batch_size: 5}
curve: {steps: [0, 2, 4, 50], num: 6}
variants:
  matrix:
    - {data: targets, generator: [linear, stripes], conditioner: near, sampler: [prior, langevin, tr0n]}
  exclude:
    - {generator: stripes, sampler: tr0n}
"""


def write(folder: Path, text: str = TOY, name: str = "toy.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def line_of(text: str, part: str) -> int:
    """The 1-based number of the only line that holds ``part``."""
    found = [i for i, line in enumerate(text.splitlines(), 1) if part in line]
    assert len(found) == 1, (part, found)
    return found[0]
