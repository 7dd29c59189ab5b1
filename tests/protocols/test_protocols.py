"""Protocols are frozen, hashed and overridable; scores under different ones are never tabled together."""

from __future__ import annotations

import shutil
from dataclasses import FrozenInstanceError, replace

import pytest

from bench import identity
from bench.errors import ResultError, SuiteError
from bench.plan import plan
from bench.protocols import Protocol, differing_fields, require_comparable, stamped
from bench.protocols.base import content_sha256
from bench.protocols.shipped import INCEPTION_SHA256, SHIPPED
from bench.report.page import write_page
from bench.report.view import RunView
from bench.runner import run
from bench.store import RunStore
from bench.suite import load_suite, suite_from_plain

# A change of any field of a shipped protocol is a change of what published scores mean: give it a new name.
FROZEN = {
    "tr0n-2023": "3222efbf26650206",
    "coco30k-clean-v1": "8ecfeeb8671c7ad7",
    "torch-fidelity": "333083c9f1fc3997",
    "clean-fid": "22cbba39b410b37d",
    "pytorch-fid": "a052db9506687c06",
    "mlperf-sdxl-5k": "1a43ea117d667c30",
    "gigagan-30k": "0f425be408c95a2a",
    "heim": "7347a09a72c39f68",
}


def shipped(name: str, **changes) -> Protocol:
    return Protocol(**{**SHIPPED[name], "name": name, **changes})


@pytest.mark.parametrize("name", FROZEN)
def test_shipped_protocols_keep_their_hash(name):
    assert shipped(name).sha256[:16] == FROZEN[name]
    assert shipped(name).title == name
    assert set(FROZEN) == set(SHIPPED) - {"native"}


def test_tr0n_s_evaluator_field_by_field():
    protocol = shipped("tr0n-2023")
    assert (protocol.num_samples, protocol.num_reference, protocol.caption) == (40_504, 40_504, "first")
    assert (protocol.resolution, protocol.size, protocol.codec) == (512, 512, "jpeg-75")
    assert (protocol.crop, protocol.resize_filter) == ("centre-round", "bilinear")
    assert (protocol.extractor_resize, protocol.extractor_scale) == ("pytorch-fid", "symmetric")
    assert (protocol.extractor_sha256, protocol.ddof) == (INCEPTION_SHA256, 1)
    with pytest.raises(FrozenInstanceError):
        protocol.codec = "png"  # type: ignore[misc]


def test_every_field_but_names_and_places_is_in_the_hash():
    base = shipped("tr0n-2023", caption="file")
    other = {
        "quantise": "round", "codec": "png", "caption": "all", "prompts_sha256": "a" * 64, "num_samples": 5,
        "reference_split": "train", "reference": "prompts", "num_reference": 7, "reference_codec": "jpeg-90",
        "crop": "none", "resize_filter": "box", "eval_size": 256, "extractor": "other",
        "extractor_sha256": "b" * 64, "extractor_resize": "clean", "extractor_scale": "tensorflow",
        "moments": "float32", "ddof": 0,
    }  # fmt: skip
    hashes = {base.sha256} | {replace(base, **{key: value}).sha256 for key, value in other.items()}
    assert len(hashes) == 1 + len(other)
    unhashed = {"name", "prompts", "resolution", "caption_seed"}
    assert set(other) | unhashed == set(Protocol.__dataclass_fields__)
    random = replace(base, caption="random")
    assert replace(random, caption_seed=1).sha256 != random.sha256
    # Where judges get 512 pixels, the generator's own size says nothing more.
    assert replace(base, resolution=256).sha256 == base.sha256
    assert Protocol(resolution=64).sha256 != Protocol().sha256
    moved = replace(base, prompts="/a/b.jsonl", prompts_sha256="a" * 64)
    assert moved.sha256 == replace(base, prompts_sha256="a" * 64).sha256


def test_a_suite_names_a_protocol_and_overrides_derive_another(small_suite):
    path = small_suite(protocol={"name": "tr0n-2023", "resolution": 32, "num_reference": 40_504,
                                 "reference_split": "val"}, judges={}, metrics={})  # fmt: skip
    overridden = load_suite(path, ["protocol.codec=png"])
    assert overridden.protocol.title == "tr0n-2023 (codec png)"
    assert overridden.protocol.sha256 != load_suite(path).protocol.sha256
    assert load_suite(path).protocol.title == "tr0n-2023"
    # Written out and read back it is the same.
    again = suite_from_plain(overridden.resolved(), "again")
    assert again.protocol == overridden.protocol
    assert again.resolved() == overridden.resolved()


def test_the_number_of_samples_is_the_protocol_s_unless_the_suite_says_another(small_suite, tmp_path):
    text = small_suite(protocol={"name": "mlperf-sdxl-5k", "resolution": 32}).read_text()
    without = "\n".join(line for line in text.splitlines() if "num: 20" not in line)
    (tmp_path / "open.yaml").write_text(without)
    assert load_suite(tmp_path / "open.yaml").samples.num == 5000
    assert load_suite(tmp_path / "small.yaml").samples.num == 20


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"name": "tr0n-2022"}, r"protocol\.name: found \"tr0n-2022\".*Did you mean 'tr0n-2023'"),
        ({"codec": "jpg"}, r"protocol\.codec: found \"jpg\""),
        ({"codec": "jpeg-0"}, r"protocol\.codec"),
        ({"codec": "jpeg-101"}, r"protocol\.codec"),
        ({"prompts": "a.jsonl"}, "set caption: file"),
        ({"caption": "file", "prompts": "a.jsonl"}, "prompts needs prompts_sha256"),
        ({"caption_seed": 3}, "goes with caption: random"),
        ({"extractor_sha256": "abc"}, r"protocol\.extractor_sha256"),
        ({"resize": "bicubic"}, "unknown field of 'protocol'.*resize_filter"),
    ],
)
def test_what_cannot_be_a_protocol_is_refused_with_its_key(small_suite, block, message):
    with pytest.raises(SuiteError, match=message):
        load_suite(small_suite(protocol=block))


def test_native_keys_are_those_of_before_protocols(small_suite):
    """Keys of artifacts made before protocols existed: what is stored under them stays found."""
    suite = load_suite(small_suite())
    cell = plan(suite).cells[0]
    assert "quantise" not in cell.config["protocol"]
    samples = identity.samples(suite, cell)
    assert samples.inputs["protocol"] == {"resolution": 32, "codec": "png"}
    readout = identity.readout(suite, samples, suite.judges["digits"])
    assert set(readout.inputs) == {"of", "judge"}
    reference = identity.reference(suite, "0" * 64, suite.judges["digits"])
    assert set(reference.inputs) == {"data", "split", "resolution", "judge"}


@pytest.mark.parametrize(
    ("change", "moved"),
    [
        ("codec=jpeg-75", {"readout"}),
        ("eval_size=16", {"readout"}),
        ("quantise=floor", {"samples", "readout"}),
        ("reference=prompts", {"reference"}),
        ("reference_codec=jpeg-75", {"reference"}),
        ("num_reference=9", set()),
        ("ddof=0", set()),
    ],
)
def test_a_field_moves_the_keys_of_what_it_changes(small_suite, change, moved):
    def keys(*overrides: str) -> dict[str, str]:
        suite = load_suite(small_suite(), overrides)
        samples = identity.samples(suite, plan(suite).cells[0])
        judge = suite.judges["digits"]
        return {
            "samples": samples.key,
            "readout": identity.readout(suite, samples, judge).key,
            "reference": identity.reference(suite, "0" * 64, judge).key,
        }

    before, after = keys(), keys(f"protocol.{change}")
    assert {kind for kind in before if before[kind] != after[kind]} == moved


# --- records and tables -----------------------------------------------------------------------------


def test_the_record_carries_the_protocol_and_each_score_its_hash(finished_run):
    records = RunStore(finished_run.out).records()
    protocol = records[0].protocol
    assert (protocol["name"], protocol["fields"]["num_reference"]) == ("native", 200)
    assert protocol["sha256"] == content_sha256(protocol["fields"])
    assert protocol["judges"]["digits"]["judge"]["weights"]
    hashes = {(score.metric, score.protocol) for record in records for score in record.scores}
    by_judge = {sha for metric, sha in hashes if metric == "fid"}
    assert len(by_judge) == 1
    assert all(len(sha) == 64 for sha in by_judge)
    assert {sha for metric, sha in hashes if metric == "seconds-per-image"} == {""}
    assert require_comparable(records) is None


def test_scores_under_another_codec_share_no_table(finished_run, tmp_path):
    out, url = finished_run.copy(tmp_path)
    suite = load_suite(finished_run.path, ["protocol.codec=jpeg-75", "protocol.num_reference=100"])
    other = tmp_path / "other"
    summary = run(suite, other, "cpu", store_url=url)
    assert summary.made["judge_images"] > 0
    assert summary.made["pairs"] == summary.made["translator"] == 0
    a, b = RunStore(out).records()[0], RunStore(other).records()[0]
    assert a.artifacts["samples"] == b.artifacts["samples"]
    fid = [next(s.value for s in record.scores if s.metric == "fid") for record in (a, b)]
    assert fid[0] != fid[1]
    assert differing_fields(a.protocol, b.protocol) == {
        "codec": ("png", "jpeg-75"),
        "num_reference": (200, 100),
    }
    with pytest.raises(
        ResultError, match=r"codec: 'png' and 'jpeg-75'; num_reference: 200 and 100.*sensitiv"
    ):
        write_page([RunView(out), RunView(other)], tmp_path / "report")
    write_page([RunView(other)], tmp_path / "report")
    shutil.copytree(out, tmp_path / "twin")
    write_page([RunView(out), RunView(tmp_path / "twin")], tmp_path / "together")


def test_other_weights_or_data_are_differing_fields_too(finished_run):
    record = RunStore(finished_run.out).records()[0]
    judge = record.protocol["judges"]["digits"]
    changed = {**judge, "data": "f" * 64, "judge": {**judge["judge"], "weights": ["e" * 64]}}
    other = {**record.protocol, "judges": {"digits": changed}}
    fields = differing_fields(record.protocol, other, "digits", "digits")
    assert set(fields) == {"reference images (sha256)", "judge's weights (sha256)"}
    assert differing_fields(record.protocol, other) == {}
    scores = stamped(record.scores, other)
    with pytest.raises(ResultError, match="reference images"):
        require_comparable([record, replace(record, scores=scores, protocol=other)])


def test_a_record_without_a_protocol_is_comparable_with_its_like_only(finished_run):
    record = RunStore(finished_run.out).records()[0]
    assert differing_fields({}, {}) == {}
    assert differing_fields(record.protocol, {}) == {"protocol": ("native", "not recorded")}
