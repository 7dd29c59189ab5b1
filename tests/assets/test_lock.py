"""The lock file: what ships is grounded and safe, and every mistake in one is named."""

from __future__ import annotations

import pytest
import yaml

from bench.assets import AssetError
from bench.assets.lock import ALLOWED, LOCK, Asset, find_asset, load_lock
from bench.torchvision_guard import ensure_torchvision

GOOD = {
    "url": "https://example.org/a.bin",
    "sha256": "0123456789abcdef" * 4,
    "bytes": 5,
    "file": "a.bin",
    "license": "MIT",
    "what": "A file",
}


def written(tmp_path, content):
    path = tmp_path / "assets.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def test_what_ships():
    assets = load_lock()
    assert list(assets) == [
        "torch-fidelity-inception",
        "coco-annotations-2014",
        "coco-val2014",
        "openai-clip-vit-b-32",
        "openai-clip-vit-l-14",
        "laion-clip-vit-b-32",
        "biggan-deep-128",
        "biggan-deep-256",
        "biggan-deep-512",
    ]
    for name, asset in assets.items():
        assert asset.name == name
        assert asset.url.endswith(f"/{asset.file}")
        if "openaipublic" in asset.url:
            assert asset.sha256 == asset.url.split("/")[-2]
    inception = assets["torch-fidelity-inception"]
    assert inception.sha256_prefix is not None
    assert inception.file.endswith(f"-{inception.sha256_prefix}.pth")


def test_the_addresses_are_those_of_the_packages_that_use_them():
    ensure_torchvision()
    from open_clip.constants import HF_SAFE_WEIGHTS_NAME
    from open_clip.pretrained import get_pretrained_cfg, get_pretrained_url
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    assets = load_lock()
    assert assets["torch-fidelity-inception"].url == URL_INCEPTION_V3
    for name, model in (("openai-clip-vit-b-32", "ViT-B-32"), ("openai-clip-vit-l-14", "ViT-L-14")):
        assert assets[name].url == get_pretrained_url(model, "openai")
    laion = get_pretrained_cfg("ViT-B-32", "laion2b_s34b_b79k")["hf_hub"]
    assert (
        assets["laion-clip-vit-b-32"].url
        == f"https://huggingface.co/{laion}resolve/main/{HF_SAFE_WEIGHTS_NAME}"
    )


def test_the_inception_judge_asks_for_the_locked_file():
    from bench.judges import inception

    assert load_lock()["torch-fidelity-inception"].file in (inception.InceptionJudge.__doc__ or "")


def test_an_unknown_asset_names_the_nearest():
    with pytest.raises(AssetError, match="Did you mean 'coco-val2014'"):
        find_asset("coco-val-2014")


def test_hash_and_size_may_be_unknown_but_must_be_said(tmp_path):
    asset = load_lock(written(tmp_path, {"a": {**GOOD, "sha256": None, "bytes": None}}))["a"]
    assert (asset.sha256, asset.bytes, asset.sha256_prefix) == (None, None, None)
    for key in ("sha256", "bytes", "url", "file", "license", "what"):
        fields = {other: value for other, value in GOOD.items() if other != key}
        with pytest.raises(AssetError, match=f"a: the key '{key}' is missing. It takes"):
            load_lock(written(tmp_path, {"a": fields}))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("url", "http://example.org/a.bin"),
        ("url", "ftp://example.org/a.bin"),
        ("url", "file:///etc/passwd"),
        ("url", "https:///a.bin"),
        ("url", "https://user:secret@example.org/a.bin"),
        ("url", "https://example.org/a b"),
        ("url", "https://example.org/a\r\nHost: b"),
        ("url", "https://example.org:port/a"),
        ("url", "https://[::1/a"),
        ("url", 3),
        ("sha256", "6726825d"),
        ("sha256", "0123456789ABCDEF" * 4),
        ("sha256", "0" * 64 + "\n"),
        ("sha256", int("1" * 64)),
        ("sha256_prefix", "6726"),
        ("bytes", 0),
        ("bytes", -5),
        ("bytes", "5"),
        ("bytes", True),
        ("file", "../a.bin"),
        ("file", "a/b.bin"),
        ("file", "a\\b.bin"),
        ("file", ".hidden"),
        ("file", "C:a"),
        ("file", ""),
        ("license", ""),
        ("what", "two\nlines"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(tmp_path, key, value):
    path = written(tmp_path, {"a": {**GOOD, key: value}})
    with pytest.raises(AssetError) as caught:
        load_lock(path)
    assert str(caught.value) == f"{path}: a: {key}: found {value!r}, allowed: {ALLOWED[key]}."


@pytest.mark.parametrize("name", ["A", "a b", "../a", "", 3, None])
def test_a_wrong_name_is_refused(tmp_path, name):
    with pytest.raises(AssetError, match="name: found"):
        load_lock(written(tmp_path, {name: GOOD}))


@pytest.mark.parametrize("key", ["sha_256", "name", 7])
def test_an_unknown_key_is_refused(tmp_path, key):
    with pytest.raises(AssetError, match=f"a: unknown key '{key}'"):
        load_lock(written(tmp_path, {"a": {**GOOD, key: "b"}}))


def test_a_prefix_must_be_one_of_the_hash(tmp_path):
    fits = {"a": {**GOOD, "sha256_prefix": "01234567"}}
    assert load_lock(written(tmp_path, fits))["a"].sha256_prefix == "01234567"
    with pytest.raises(AssetError, match="sha256_prefix: found '76543210', allowed: the first 8"):
        load_lock(written(tmp_path, {"a": {**GOOD, "sha256_prefix": "76543210"}}))


def test_two_assets_of_one_file_are_refused(tmp_path):
    content = {"a": GOOD, "b": {**GOOD, "file": "A.bin"}}
    with pytest.raises(AssetError, match=r"b: file: 'A.bin' is also the file of 'a'"):
        load_lock(written(tmp_path, content))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds nothing, expected a mapping"),
        ("- a", "holds list, expected a mapping"),
        ("a: https://example.org", "a: found str, expected a mapping"),
        ("a: [", "cannot be read"),
        ("a: !!python/object/apply:os.system [echo]", "cannot be read"),
        ("a: {}\nb: {}\na: {}", r"assets.yaml:3: the key 'a' is there twice"),
        ("a:\n  sha256: x\n  sha256: y", r"assets.yaml:3: the key 'sha256' is there twice"),
    ],
)
def test_what_is_no_lock_file_is_refused(tmp_path, text, message):
    with pytest.raises(AssetError, match=message):
        load_lock(written(tmp_path, text))


def test_a_missing_or_binary_lock_file_is_refused(tmp_path):
    with pytest.raises(AssetError, match="cannot be read"):
        load_lock(tmp_path / "absent.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(AssetError, match="cannot be read"):
        load_lock(tmp_path / "binary.yaml")


def test_an_asset_cannot_be_changed():
    asset = Asset.model_validate({"name": "a", **GOOD})
    with pytest.raises(ValueError, match="frozen"):
        asset.url = "http://example.org"
    assert LOCK.name == "assets.yaml"
