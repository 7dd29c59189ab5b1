"""Run folders made for reports: any number of samples, without drawing any."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from bench.payload import to_pngs
from bench.store import CellInfo, Record, RunStore
from bench.types import Score, Timing

WORDS = ("red", "blue", "small", "large", "circle", "square", "heart", "upper", "lower", "left", "grey")


def synthetic_run(
    folder: Path,
    *,
    num: int = 40,
    samplers: tuple[str, ...] = ("prior", "tr0n"),
    generators: tuple[str, ...] = ("gan",),
    size: int = 32,
    captions: dict[int, str] | None = None,
    intervals: bool = True,
    suite_name: str = "synthetic",
) -> Path:
    """A run with ``num`` samples a variant. Pictures are smooth noise, so that they compress as photographs
    do; ``captions`` replaces some. Later samplers are better and slower."""
    store, ids = RunStore(folder), []
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, 6)) for _ in range(num)]
    for index, text in (captions or {}).items():
        texts[index] = text
    shapes = rng.choice(["circle", "square"], num)
    for generator in generators:
        for k, sampler in enumerate(samplers):
            cell_id = f"cell-{len(ids)}"
            ids.append(cell_id)
            right = rng.random(num) < (k + 1) / (len(samplers) + 1)
            cosine = rng.normal(0.2 + 0.1 * k, 0.05, num).astype(np.float32)
            store.write_record(_record(cell_id, generator, sampler, k, right, cosine, intervals))
            store.write_images(cell_id, to_pngs(smooth_noise(rng, num, size)))
            store.write_samples(
                cell_id,
                pd.DataFrame(
                    {
                        "index": np.arange(num),
                        "condition_id": [f"text:{i}" for i in range(num)],
                        "kind": "text",
                        "text": texts,
                        "labels": [f'{{"shape":"{shape}"}}' for shape in shapes],
                        "replicate": 0,
                        "seed": np.arange(num),
                        "energy": rng.normal(size=num).astype(np.float32),
                        "failed_step": -1,
                        "class-accuracy": right,
                        "clip-cosine": cosine,
                    }
                ),
            )
    store.write_run({"suite_name": suite_name, "suite": {"seed": 1}, "cells": ids, "provenance": {}})
    return folder


def smooth_noise(rng: np.random.Generator, num: int, size: int) -> np.ndarray:
    """uint8 (num, 3, size, size): a coarse random image stretched, with a little fine noise."""
    coarse = rng.random((num, 3, 4, 4)).repeat(size // 4, 2).repeat(size // 4, 3)
    return (255 * np.clip(coarse + rng.normal(0, 0.02, coarse.shape), 0, 1)).astype(np.uint8)


def _record(
    cell_id: str, generator: str, sampler: str, k: int, right: np.ndarray, cosine: np.ndarray, intervals: bool
) -> Record:
    n = len(right)

    def score(metric: str, title: str, value: float, half: float, **more) -> Score:
        interval = (value - half, value + half) if intervals else None
        return Score(metric=metric, title=title, value=value, n=n, interval=interval, **more)

    scores = (
        score("fid", "FID", 30.0 / (k + 1), 1.5, better="lower", judge="judge"),
        score("class-accuracy", "Class accuracy", float(right.mean()), 0.05, judge="judge"),
        score("clip-cosine", "CLIP cosine", float(cosine.mean()), 0.01, judge="judge"),
        score("seconds-per-image", "Seconds per image", 0.01 * 4**k, 0.0, better="lower", unit="s/image"),
        score("kid", "KID", 0.1 / (k + 1), 0.01, better="lower", judge="judge"),
    )
    curve = tuple(
        Score(metric="fid", title="FID", value=30 / (k + 1) + 5 - t, better="lower", n=n, step=t)
        for t in ((0, 2, 4) if k else ())
    )
    counts = ("generator_forwards", "generator_backwards", "auxiliary_forwards", "auxiliary_backwards")
    timing = Timing(
        num_samples=n, batch_size=8, phase_s={"refine": 0.01 * n * 4**k, "decode": 0.002 * n},
        batch_s=(0.5,), batch_n=(n,), evaluations=dict.fromkeys(counts, n), peak_memory_gib=1.0,
    )  # fmt: skip
    cell = CellInfo(
        id=cell_id, variant=f"{generator}/{sampler}", data="shapes", condition_kind="text",
        generator=generator, conditioner="guide", sampler=sampler, translator=None, num_samples=n, seed=1,
    )  # fmt: skip
    return Record(
        cell=cell, status="ok", scores=scores, curve=curve, timing=timing,
        environment={"packages": {"torch": "2"}, "python": "3"}, created_utc="2026-01-01T00:00:00+00:00",
    )  # fmt: skip
