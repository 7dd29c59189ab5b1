"""Several conditions at once: a weighted sum of energies, with "or" and "not".

Shapes: N samples, n terms, D condition of the conditioner inside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.errors import DataError, SuiteError
from bench.streams import Streams
from bench.suite.blocks import Named
from bench.suite.nested import NestedConditioner
from bench.types import Condition, ConditionKind


@dataclass(frozen=True, kw_only=True)
class Term:
    """One part of what is asked for, with its ``weight``; ``negate`` asks that it be absent.

    Of class conditions a term takes the attributes ``heads``. Of text conditions it takes ``text``, where
    "{text}" is the prompt and "{color}" the condition's attribute of that name.
    """

    text: str | None = None
    heads: tuple[str, ...] | None = None
    weight: float = 1.0
    negate: bool = False

    def __post_init__(self) -> None:
        if (self.text is None) == (self.heads is None):
            raise SuiteError("a term takes either text (of text conditions) or heads (of class conditions).")
        if self.weight <= 0:
            raise SuiteError(f"weight must be positive, got {self.weight}. To ask for absence: negate: true.")


@dataclass(frozen=True, kw_only=True)
class Composition:
    """E = Σ w_i E_i over the ``terms`` of a condition ("and"), or -τ log Σ w_i exp(-E_i / τ) ("or").

    A negated text term is max(0, cos - ``margin``), bounded so that nothing runs away from an image's own
    content; a negated class term -log(1 - p). All terms see the same image and the same augmented views; f
    is evaluated, and counted, once per term. ``start`` is what a translator is asked: "joint" the positive
    terms as one condition (texts joined by "and"), "mean" the normalised mean of their unit embeddings at
    their mean norm, "pool" each term by itself, all mixtures put together. ``combinations`` restricts class
    conditions to these ("shape=star,color=red"). Synthetic pairs and translator are those of the conditioner
    inside. A negated attribute moves from a condition's labels to what it must avoid. Source: sums of
    energies, as in PromptGen and Steered Diffusion; "or" and "not" are ours (LACE negates without a bound).
    """

    conditioner: NestedConditioner
    terms: tuple[Term, ...]
    combine: Literal["and", "or"] = "and"
    start: Literal["joint", "mean", "pool"] = "joint"
    margin: float = 0.0
    temperature: float = 0.1
    combinations: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.terms:
            raise SuiteError("terms must not be empty.")
        if self.temperature <= 0:
            raise SuiteError(f"temperature must be positive, got {self.temperature}.")
        if self.kind not in ("class", "text"):
            raise SuiteError(f"conditions of kind '{self.kind}' cannot be composed; class and text can.")
        wanted = "heads" if self.kind == "class" else "text"
        if any(getattr(term, wanted) is None for term in self.terms):
            raise SuiteError(f"terms of {self.kind} conditions need '{wanted}'.")
        if all(term.negate for term in self.terms):
            raise SuiteError("terms must not all be negated: nothing would be asked for.")
        if self.combinations and self.kind != "class":
            raise SuiteError("combinations restrict class conditions only.")

    @property
    def kind(self) -> ConditionKind:
        return self.conditioner.config.kind

    @property
    def views(self) -> int:
        return max(1, getattr(self.conditioner.config, "views", 1)) * len(self.terms)

    @property
    def heads(self) -> tuple[str, ...] | None:
        """The attributes that make class conditions: those of the terms, each once."""
        if self.kind != "class":
            return None
        return tuple(dict.fromkeys(head for term in self.terms for head in term.heads or ()))

    @property
    def pairing(self) -> Named[Any]:
        return self.conditioner.named

    def check_data(self, source: Any) -> str | None:
        check = getattr(self.conditioner.config, "check_data", None)
        return check(source) if check else None

    def asked(self, conditions: Sequence[Condition]) -> list[Condition]:
        """The conditions as this composition asks them: restricted, with negated attributes to be avoided.

        Raises SuiteError for a combination that is none of the conditions.
        """
        if self.combinations:
            known = {
                frozenset(f"{name}={value}" for name, value in condition.labels.items()): condition
                for condition in conditions
            }
            picked = []
            for text in self.combinations:
                key = frozenset(part.strip() for part in text.split(","))
                if key not in known:
                    names = ", ".join(self.heads or ())
                    raise SuiteError(f"combinations: '{text}' is no combination of {names}.")
                picked.append(known[key])
            conditions = picked
        absent = {head for term in self.terms if term.negate for head in term.heads or ()}
        if not absent:
            return list(conditions)
        return [self._without(condition, absent) for condition in conditions]

    def _without(self, condition: Condition, absent: set[str]) -> Condition:
        labels = {name: value for name, value in condition.labels.items() if name not in absent}
        avoid = {name: value for name, value in condition.labels.items() if name in absent}
        words = " and ".join([" ".join(labels.values()), *(f"not {value}" for value in avoid.values())])
        return replace(condition, labels=labels, avoid=avoid, text=words)

    def load(self, device: torch.device) -> CompositionConditioner:
        return CompositionConditioner(self, self.conditioner.config.load(device))


class CompositionConditioner:
    """``embed`` gives (N, (n + 1) · D): each term's vector, then the joint one. ``dim`` is D, which a
    translator reads."""

    def __init__(self, config: Composition, inner: Any):
        self.config, self.inner = config, inner
        self.dim, self.views = inner.dim, inner.views * len(config.terms)

    @property
    def pairing(self) -> Any:
        """What makes synthetic pairs: the conditioner inside."""
        return self.inner

    def embed(self, conditions: Sequence[Condition]) -> Tensor:
        find = self._class_vectors if self.config.kind == "class" else self._text_vectors
        return torch.cat(find(conditions), dim=1)

    def _class_vectors(self, conditions: Sequence[Condition]) -> list[Tensor]:
        whole = [replace(c, labels={**c.labels, **c.avoid}) for c in conditions]
        one_hot = self._one_hot(whole)
        masks = [self._mask(term.heads or ()).to(one_hot) for term in self.config.terms]
        spread = [torch.full((size,), 1 / size) for size in self.inner.sizes]
        joint = torch.cat(spread).to(one_hot).expand_as(one_hot)
        for term, mask in zip(self.config.terms, masks):
            joint = torch.where(mask > 0, self._others(one_hot) if term.negate else one_hot, joint)
        return [*(one_hot * mask for mask in masks), joint]

    def _one_hot(self, conditions: Sequence[Condition]) -> Tensor:
        """(N, D); heads of the conditioner that no term asks for are zero."""
        missing = [head for head in self.inner.heads if head not in (self.config.heads or ())]
        filled = [
            replace(c, labels={**{head: self.inner.network.heads[head][0] for head in missing}, **c.labels})
            for c in conditions
        ]
        return self.inner.embed(filled) * self._mask(self.config.heads or ()).to(self.inner.device)

    def _mask(self, heads: Sequence[str]) -> Tensor:
        """(D,): one in the blocks of these heads. Raises SuiteError for one that f does not have."""
        unknown = [head for head in heads if head not in self.inner.heads]
        if unknown:
            raise SuiteError(f"terms: '{unknown[0]}' is none of the heads {', '.join(self.inner.heads)}.")
        flags = [torch.full((s,), float(h in heads)) for h, s in zip(self.inner.heads, self.inner.sizes)]
        return torch.cat(flags)

    def _others(self, one_hot: Tensor) -> Tensor:
        """Every value but the one that is hot, evenly."""
        parts = one_hot.split(list(self.inner.sizes), dim=1)
        return torch.cat([(1 - part) / max(1, part.shape[1] - 1) for part in parts], dim=1)

    def _text_vectors(self, conditions: Sequence[Condition]) -> list[Tensor]:
        rows = [[_worded(term.text or "", c) for c in conditions] for term in self.config.terms]
        positive = [texts for term, texts in zip(self.config.terms, rows) if not term.negate]
        joint = [" and ".join(parts) for parts in zip(*positive)]
        return [self.inner.embed_texts(texts) for texts in [*rows, joint]]

    def parts(self, condition_ND: Tensor) -> Tensor:
        """(N, n + 1, D)."""
        return condition_ND.view(len(condition_ND), len(self.config.terms) + 1, self.dim)

    def translator_inputs(self, condition_ND: Tensor) -> Tensor:
        """(N, k, D): what a translator is asked, one mixture each; see :class:`Composition`."""
        parts = self.parts(condition_ND)
        positive = [i for i, term in enumerate(self.config.terms) if not term.negate]
        if self.config.start == "joint":
            return parts[:, -1:]
        vectors = parts[:, positive]
        if self.config.kind == "class":
            # Undemanded heads are open, which to a translator means evenly probable, not zero.
            even = torch.cat([torch.full((size,), 1 / size) for size in self.inner.sizes]).to(vectors)
            masks = torch.stack([self._mask(self.config.terms[i].heads or ()) for i in positive]).to(vectors)
            vectors = torch.where(masks > 0, vectors, even)
        if self.config.start == "pool":
            return vectors
        length = torch.linalg.vector_norm(vectors, dim=2).mean(1)
        return (F.normalize(F.normalize(vectors, dim=2).mean(1), dim=1) * length[:, None])[:, None]

    def encode(self, images_NCHW: Tensor, streams: Streams) -> Tensor:
        return self.inner.encode(images_NCHW, streams)

    def term_energies(self, images_NCHW: Tensor, condition_ND: Tensor, streams: Streams, step: int) -> Tensor:
        """(N, n), weights not applied."""
        found = []
        for term, vector in zip(self.config.terms, self.parts(condition_ND).unbind(1)):
            energy = self.inner.energy(images_NCHW, vector, streams, step)
            found.append(self._negated(energy) if term.negate else energy)
        return torch.stack(found, dim=1)

    def _negated(self, energy_N: Tensor) -> Tensor:
        if self.config.kind == "text":
            return F.relu(-energy_N - self.config.margin)
        # -log(1 - p) with p = exp(-E); at p = 1 to rounding the slope stays finite.
        return -torch.log(-torch.expm1(-energy_N.clamp(min=1e-6)))

    def energy(self, images_NCHW: Tensor, condition_ND: Tensor, streams: Streams, step: int) -> Tensor:
        energies = self.term_energies(images_NCHW, condition_ND, streams, step)
        weights = torch.tensor([term.weight for term in self.config.terms]).to(energies)
        if self.config.combine == "and":
            return (weights * energies).sum(1)
        tau = self.config.temperature
        return -tau * torch.logsumexp(weights.log() - energies / tau, dim=1)


def _worded(template: str, condition: Condition) -> str:
    """The template with the condition's words in it; words are data and never templates themselves."""
    known: Mapping[str, str] = {"text": condition.text or "", **condition.labels}
    out, rest = "", template
    while "{" in rest:
        before, _, rest = rest.partition("{")
        name, brace, rest = rest.partition("}")
        if not brace or name not in known:
            raise DataError(
                f"term '{template}' asks for '{{{name}}}', which condition '{condition.id}' does not have. "
                f"It has: {', '.join(known)}."
            )
        out += before + known[name]
    return out + rest
