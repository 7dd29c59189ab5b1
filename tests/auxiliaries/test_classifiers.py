"""Public classifiers from files in the published formats, against timm and torchvision themselves.

Measured at random weights (ResNet-18 of both libraries, CPU): logits of the judge differ from the library's
own transform and network by at most 1e-5.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from bench.auxiliaries.classifier_files import (
    CIFAR10,
    ClassifierFiles,
    class_names,
    imagenet_names,
    imagenet_synsets,
)
from bench.auxiliaries.classifiers import load_classifier, preprocessing
from bench.components import CONDITIONERS, JUDGES, resolve_path
from bench.errors import SuiteError, WeightError
from bench.streams import Streams
from bench.torchvision_guard import ensure_torchvision
from bench.types import Condition
from bench.worlds.cifar import Cifar10
from bench.worlds.digits import Digits

ensure_torchvision()
CPU = torch.device("cpu")
Guide, Judge = resolve_path(CONDITIONERS["public-classifier"]), resolve_path(JUDGES["public-classifier"])


def pictures(num: int = 3, height: int = 40, width: int = 52) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (num, 3, height, width), dtype=np.uint8)


@pytest.fixture(scope="module")
def cifar_model(tmp_path_factory):
    """(fields, torchvision's network) of a CIFAR-10 ResNet-18, its file without counts of batches."""
    from torchvision import models

    torch.manual_seed(0)
    network = models.resnet18(num_classes=10).eval()
    path = tmp_path_factory.mktemp("resnet") / "resnet18.pth"
    state = {k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch": 3}, path)
    return {
        "library": "torchvision", "model": "resnet18", "weights": str(path), "preset": "cifar10",
    }, network  # fmt: skip


def test_torchvisions_own_transform_and_network_give_the_judges_logits(cifar_model):
    from torchvision import transforms

    fields, network = cifar_model
    transform = transforms.Compose(
        [
            transforms.Resize(32),
            transforms.CenterCrop(32),
            transforms.ToTensor(),
            transforms.Normalize((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        ]
    )
    images = pictures()
    batch = torch.stack([transform(Image.fromarray(image.transpose(1, 2, 0))) for image in images])
    with torch.no_grad():
        expected = network(batch)
    readout = Judge(**fields, batch_size=2).load(CPU).readout(images)
    assert np.abs(readout.logits["class"] - expected.numpy()).max() < 1e-5
    assert readout.classes == {"class": CIFAR10}
    with torch.no_grad():
        assert (network.fc(torch.from_numpy(readout.features)) - expected).abs().max() < 1e-5


def test_timms_own_transform_and_network_give_the_judges_logits(tmp_path):
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(1)
    network = timm.create_model("resnet10t.c3_in1k", pretrained=False).eval()
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    transform = timm.data.create_transform(
        **timm.data.resolve_data_config(network.pretrained_cfg), is_training=False
    )
    images = pictures(2)
    batch = torch.stack([transform(Image.fromarray(image.transpose(1, 2, 0))) for image in images])
    with torch.no_grad():
        expected = network(batch)
    fields = {
        "model": "resnet10t.c3_in1k", "weights": str(tmp_path / "model.safetensors"), "preset": "timm",
    }  # fmt: skip
    readout = Judge(**fields, batch_size=2).load(CPU).readout(images)
    assert np.abs(readout.logits["class"] - expected.numpy()).max() < 1e-5
    assert len(readout.classes["class"]) == 1000


def test_the_energy_is_minus_log_p_and_has_each_sample_s_own_gradient(cifar_model):
    fields, network = cifar_model
    guide = Guide(**fields).load(CPU)
    images = (torch.from_numpy(pictures(3, 32, 32)).float() / 127.5 - 1).requires_grad_()
    asked = [Condition(id=name, kind="class", labels={"class": name}) for name in ("cat", "ship", "cat")]
    condition = guide.embed(asked)
    assert condition.argmax(1).tolist() == [3, 8, 3]
    energy = guide.energy(images, condition, Streams.from_seed(3, "e"), 0)
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)))
    logits = network(((images + 1) / 2 - mean) / std)
    assert torch.allclose(
        energy, F.cross_entropy(logits, torch.tensor([3, 8, 3]), reduction="none"), atol=1e-5
    )
    (gradient,) = torch.autograd.grad(energy[1], images)
    assert float(gradient[1].abs().max()) > 0
    assert float(gradient[[0, 2]].abs().max()) == 0
    alone = guide.energy(images[2:].detach(), condition[2:], Streams.from_seed(1, "e"), 0)
    assert torch.allclose(alone, energy[2:], atol=1e-5)
    assert torch.allclose(guide.encode(images, None), logits.softmax(1), atol=1e-6)


def test_guide_and_judge_see_the_same_picture_up_to_rounding(cifar_model):
    network = load_classifier(ClassifierFiles(**cifar_model[0], size=28, crop=0.875), CPU)
    images = np.kron(pictures(2, 10, 13), np.ones((1, 1, 8, 8), np.uint8))  # smooth enough to be resized
    exact = network.prepare(images)
    tensors = network._resized(torch.from_numpy(images).float() / 127.5 - 1)
    assert exact.shape == tensors.shape == (2, 3, 28, 28)
    assert float((exact - tensors).abs().max()) < 1.5 / 255 / 0.24


def test_the_names_of_imagenet_are_unique_and_in_the_usual_order():
    names = imagenet_names()
    assert len(names) == len(set(names)) == 1000
    assert (names[0], names[1], names[281]) == ("tench", "goldfish", "tabby")
    assert imagenet_synsets()[0] == "n01440764"
    assert "crane (n02012849)" in names


def test_presets_can_be_changed_value_by_value():
    files = ClassifierFiles(model="resnet50.a1_in1k", weights="x", preset="timm", size=96)
    how = preprocessing(files)
    assert (how.size, how.crop, how.interpolation) == (96, 0.95, "bicubic")
    assert preprocessing(ClassifierFiles(model="resnet50", weights="x")).crop == 0.875


def test_data_of_other_classes_is_refused_before_any_weight_loads(tmp_path):
    files = ClassifierFiles(model="resnet18", weights="gone", preset="cifar10")
    assert files.check_data(Cifar10(root="x")) is None
    assert "no attribute 'class'" in files.check_data(Digits())
    wrong = ClassifierFiles(model="resnet18", weights="gone")
    assert "'airplane' is none of the classifier's 1000 classes (tench," in wrong.check_data(
        Cifar10(root="x")
    )
    names = tmp_path / "digits.txt"
    names.write_text("".join(f"{k}\n" for k in range(10)))
    assert (
        ClassifierFiles(model="m", weights="w", classes=str(names), head="digit").check_data(Digits()) is None
    )
    names.write_text("a\na\n")
    with pytest.raises(WeightError, match=r"names 'a' twice"):
        class_names(ClassifierFiles(model="m", weights="w", classes=str(names)))


def test_files_and_models_that_do_not_fit_are_named(cifar_model, tmp_path):
    fields, network = cifar_model
    with pytest.raises(WeightError, match=r"'fc.bias' has shape \(10,\), expected \(1000,\)"):
        load_classifier(ClassifierFiles(**{**fields, "preset": "imagenet"}), CPU)
    state = network.state_dict()
    del state["fc.weight"]
    torch.save({**state, "extra": torch.zeros(1)}, tmp_path / "spoilt.pth")
    with pytest.raises(WeightError, match=r"missing key 'fc.weight'; unexpected key 'extra'"):
        load_classifier(ClassifierFiles(**{**fields, "weights": str(tmp_path / "spoilt.pth")}), CPU)
    with pytest.raises(WeightError, match=r"no classifier 'resnet81'. Did you mean 'resnet18'"):
        load_classifier(ClassifierFiles(**{**fields, "model": "resnet81"}), CPU)
    with pytest.raises(WeightError, match=r"gone.*is missing.*classifier resnet18 of torchvision"):
        load_classifier(ClassifierFiles(**{**fields, "weights": "gone"}), CPU)
    with pytest.raises(SuiteError, match=r"preset timm needs library: timm"):
        ClassifierFiles(**{**fields, "preset": "timm"})
