"""FID agrees with torch-fidelity's and clean-fid's own on the same exported PNG files."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch

from bench.errors import WeightError
from bench.judges.classifier import ClassifierJudge
from bench.judges.fidelity import register
from bench.judges.inception import InceptionJudge
from bench.metrics.fid import Fid
from bench.metrics.frechet import Moments, frechet_distance
from bench.payload import to_pngs
from bench.store import RunStore
from bench.torchvision_guard import ensure_torchvision
from bench.types import Evidence, Readout
from bench.worlds.shapes_source import Shapes

ensure_torchvision()
CPU = torch.device("cpu")


def shapes_pngs(store: RunStore, cell: str, start: int, num: int, noise: float = 0.0) -> Path:
    """Writes rendered shapes as PNG files and returns their folder."""
    images = Shapes().make("val", start, num)[0].numpy()
    if noise:
        images = (
            (images + np.random.default_rng(0).normal(0, noise, images.shape)).clip(0, 255).astype(np.uint8)
        )
    store.write_images(cell, to_pngs(images))
    return store.image_path(cell, 0).parent


def fid(samples: Readout, reference: Readout, **options) -> float:
    evidence = Evidence(conditions=(), readouts={"j": samples}, reference={"j": reference})
    return Fid(judge="j", **options).compute(evidence).scores[0].value


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[RunStore, Path, Path]:
    store = RunStore(tmp_path_factory.mktemp("pngs"))
    return store, shapes_pngs(store, "a", 0, 300), shapes_pngs(store, "b", 300, 300, noise=20)


def test_fid_equals_torch_fidelity_with_the_judge_as_extractor(folders):
    import torch_fidelity

    store, a, b = folders
    judge = ClassifierJudge(model="shapes-classifier-judge").load(CPU)
    ours = fid(judge.readout(store.read_images("a")), judge.readout(store.read_images("b")))
    theirs = torch_fidelity.calculate_metrics(
        input1=str(a),
        input2=str(b),
        fid=True,
        cuda=False,
        verbose=False,
        cache=False,
        feature_extractor=register("shapes-judge", judge),
        feature_layer_fid="features",
        samples_find_deep=False,
    )["frechet_inception_distance"]
    assert ours > 1
    assert ours == pytest.approx(theirs, rel=1e-6)


@pytest.fixture(scope="module")
def inception_weights(tmp_path_factory) -> Path:
    """Random weights in the file format that torch-fidelity publishes (a state dict with its key names)."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    folder = tmp_path_factory.mktemp("inception")
    torch.save({}, folder / "empty.pth")
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        network = FeatureExtractorInceptionV3(
            "x", ["2048"], feature_extractor_weights_path=str(folder / "empty.pth")
        )
    torch.save(network.state_dict(), folder / "weights.pth")
    return folder / "weights.pth"


def test_inception_features_and_fid_equal_clean_fids_own(folders, inception_weights):
    from cleanfid import fid as cleanfid

    store, a, b = folders
    judge = InceptionJudge(weights=str(inception_weights), resize="clean", batch_size=8).load(CPU)
    num = 10
    features = []
    for cell, folder in (("a", a), ("b", b)):
        ours = judge.readout(store.read_images(cell, range(num))).features
        theirs = cleanfid.get_folder_features(
            str(folder),
            model=lambda x: judge._pooled((x - 128) / 128),
            num_workers=0,
            num=num,
            batch_size=8,
            device=CPU,
            mode="clean",
            verbose=False,
        )
        assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()
        features.append((ours[:, :24].astype(np.float64), theirs[:, :24].astype(np.float64)))
    (a_ours, a_theirs), (b_ours, b_theirs) = features
    first = frechet_distance(*moments(a_ours), *moments(b_ours))
    second = frechet_distance(*moments(a_theirs), *moments(b_theirs))
    assert first == pytest.approx(second, rel=1e-6)


def test_the_frechet_term_equals_clean_fids_where_scipy_still_lets_it_run():
    from cleanfid import fid as cleanfid

    draws = np.random.default_rng(1)
    a, b = draws.normal(size=(500, 20)), draws.normal(0.3, 1.4, size=(500, 20))
    ours = frechet_distance(*moments(a), *moments(b))
    if "disp" in inspect.signature(scipy.linalg.sqrtm).parameters:
        assert ours == pytest.approx(float(cleanfid.frechet_distance(*moments(a), *moments(b))), rel=1e-6)
    product = moments(a)[1] @ moments(b)[1]
    cross = np.sqrt(scipy.linalg.eigvals(product)).real.sum()
    mean = np.square(a.mean(0) - b.mean(0)).sum()
    assert ours == pytest.approx(
        mean + np.trace(moments(a)[1]) + np.trace(moments(b)[1]) - 2 * cross, rel=1e-9
    )


def moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    both = Moments.of(features)
    return both.mean, both.covariance


def test_inception_features_equal_torch_fidelitys_own(folders, inception_weights):
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    store, _, _ = folders
    images = store.read_images("a", range(6))
    judge = InceptionJudge(weights=str(inception_weights), resize="torch-fidelity", batch_size=6).load(CPU)
    network = FeatureExtractorInceptionV3(
        "x", ["2048"], feature_extractor_weights_path=str(inception_weights)
    )
    theirs = network(torch.from_numpy(images))[0].numpy()
    assert np.abs(judge.readout(images).features - theirs).max() <= 1e-6 * np.abs(theirs).max()


def test_the_fid_path_never_takes_a_matrix_square_root_from_scipy(folders, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("sqrtm was called")

    monkeypatch.setattr(scipy.linalg, "sqrtm", refuse)
    store, _, _ = folders
    judge = ClassifierJudge(model="shapes-classifier-judge").load(CPU)
    readout = judge.readout(store.read_images("a", range(100)))
    assert fid(readout, readout) <= 1e-6


def test_missing_or_wrong_inception_weights_are_refused_by_name(tmp_path, inception_weights):
    with pytest.raises(WeightError, match=r"gone\.pth.*missing"):
        InceptionJudge(weights=str(tmp_path / "gone.pth")).load(CPU)
    with pytest.raises(WeightError, match="sha256"):
        InceptionJudge(weights=str(inception_weights), sha256="0" * 64).load(CPU)
    (tmp_path / "evil.pth").write_bytes(b"cos\nsystem\n(S'echo'\ntR.")
    with pytest.raises(WeightError, match="not a plain state dict"):
        InceptionJudge(weights=str(tmp_path / "evil.pth")).load(CPU)
