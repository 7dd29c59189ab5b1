"""What a record says of its protocol, and whether two scores are of the same quantity."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bench.errors import ResultError
from bench.protocols.base import Protocol, content_sha256
from bench.protocols.shipped import MANY
from bench.types import Score

if TYPE_CHECKING:
    from bench.store import Record

# Of what a judge's entry says, the names under which a reader looks for it.
_JUDGE_FIELDS = {"data": "reference images (sha256)", "weights": "judge's weights (sha256)"}


def record_protocol(
    protocol: Protocol,
    *,
    num_samples: int,
    num_reference: int | None,
    judges: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """``Record.protocol``: ``name``, ``title``, ``sha256``, ``fields`` and, by judge, what its reference
    was made from.

    Counts are those of the cell. A protocol that leaves the number of samples open keeps it open, and tables
    then show n in every row.
    """
    used = {
        item["judge"]["weights"][0]
        for item in judges.values()
        if item["judge"]["config"].get("kind") == "inception" and item["judge"]["weights"]
    }
    settled = replace(
        protocol,
        # What features were taken with, whatever the protocol asks for.
        extractor_sha256=min(used - {protocol.extractor_sha256}, default=protocol.extractor_sha256)
        if protocol.extractor_sha256 is not None
        else None,
        num_samples=None if protocol.num_samples is None else num_samples,
        # All images there are: which they are says the data's hash.
        num_reference=protocol.num_reference
        if num_reference is None or protocol.num_reference == MANY
        else num_reference,
    )
    return {
        "name": protocol.name,
        "title": settled.title,
        "sha256": settled.sha256,
        "fields": settled.content,
        "judges": {name: dict(inputs) for name, inputs in sorted(judges.items())},
    }


def score_sha256(protocol: Mapping[str, Any], judge: str | None) -> str:
    """The hash of all that a judge's scores depend on besides the samples; "" for scores without a judge."""
    if judge is None or not protocol:
        return ""
    return content_sha256([protocol["fields"], protocol["judges"].get(judge)])


def stamped(scores: Iterable[Score], protocol: Mapping[str, Any]) -> tuple[Score, ...]:
    """The scores, each with the hash of its protocol."""
    return tuple(replace(score, protocol=score_sha256(protocol, _compared_with(score))) for score in scores)


def _compared_with(score: Score) -> str | None:
    """The name in ``judges`` of what a score's reference was made from: with the split, where it is not the
    protocol's."""
    split = score.details.get("split")
    return score.judge if score.judge is None or split is None else f"{score.judge}@{split}"


def differing_fields(
    a: Mapping[str, Any], b: Mapping[str, Any], judge_a: str | None = None, judge_b: str | None = None
) -> dict[str, tuple[Any, Any]]:
    """Field → its values in two recorded protocols (``Record.protocol``), for those that differ.

    Empty where scores may share a column of a table. With the names of the judges (of each record) their
    configuration, weights and reference images are compared as well. A record from before protocols were
    recorded differs from every other in ``protocol``.
    """
    if not a or not b:
        sides = tuple(side["title"] if side else "not recorded" for side in (a, b))
        return {} if a == b else {"protocol": (sides[0], sides[1])}
    left, right = a["fields"], b["fields"]
    found = {
        name: (left.get(name), right.get(name))
        for name in dict.fromkeys([*left, *right])
        if left.get(name) != right.get(name)
    }
    if judge_a is not None or judge_b is not None:
        found |= _judge_differences(
            a["judges"].get(str(judge_a), {}), b["judges"].get(str(judge_b if judge_b else judge_a), {})
        )
    return found


def _judge_differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    found: dict[str, tuple[Any, Any]] = {}
    if a.get("data") != b.get("data"):
        found[_JUDGE_FIELDS["data"]] = (a.get("data"), b.get("data"))
    one, two = a.get("judge", {}), b.get("judge", {})
    if one.get("weights") != two.get("weights"):
        found[_JUDGE_FIELDS["weights"]] = (one.get("weights"), two.get("weights"))
    left, right = one.get("config", {}), two.get("config", {})
    for name in dict.fromkeys([*left, *right]):
        if left.get(name) != right.get(name):
            found[f"judge.{name}"] = (left.get(name), right.get(name))
    if one.get("version") != two.get("version"):
        found["judge.version"] = (one.get("version"), two.get("version"))
    return found


def require_comparable(records: Sequence[Record], where: str = "") -> None:
    """Raises ResultError where two records would put scores of different protocols into one column of a
    table: the same metric and judge's name under different hashes. Says which fields differ."""
    first: dict[str, tuple[Record, Score]] = {}
    for record in records:
        for score in record.scores:
            known, other = first.setdefault(score.metric, (record, score))
            if known is record or other.protocol == score.protocol:
                continue
            fields = differing_fields(
                known.protocol, record.protocol, _compared_with(other), _compared_with(score)
            )
            listed = "; ".join(f"{name}: {a!r} and {b!r}" for name, (a, b) in fields.items())
            raise ResultError(
                f"{where + ': ' if where else ''}'{score.title}' of '{known.cell.id}' and of "
                f"'{record.cell.id}' are scores under different protocols and cannot share a table: "
                f"{listed or 'the judge'}. Report the runs one by one, or bring them to one protocol "
                "(tr0n-bench sensitivity shows what each field does)."
            )
