"""The zoo's byte-pair vocabulary, read by open_clip's own tokenizer."""

from __future__ import annotations

import gzip
import re

from bench.streams import Streams
from bench.worlds import shapes
from bench.zoo.clip import CONTEXT_LENGTH, VOCABULARY, Tokenizer, train_vocabulary
from bench.zoo.weights import WEIGHTS_DIR, load_model


def sample_captions(num: int = 60) -> list[str]:
    rows = shapes.labels(shapes.sample_scenes(Streams.from_seed(num, "vocabulary"), 1))
    return [text for five in shapes.captions(rows, Streams.from_seed(num, "vocabulary")) for text in five]


def test_merges_are_reproducible_and_shorten_what_they_were_learned_from(tmp_path):
    texts = sample_captions()
    number = train_vocabulary(texts, tmp_path / "a.txt.gz")
    train_vocabulary(texts, tmp_path / "b.txt.gz")
    assert (tmp_path / "a.txt.gz").read_bytes() == (tmp_path / "b.txt.gz").read_bytes()
    lines = gzip.decompress((tmp_path / "a.txt.gz").read_bytes()).decode().splitlines()
    assert len(lines) == number + 1
    tokenizer = Tokenizer(tmp_path / "a.txt.gz")
    for text in texts[:20]:
        tokens = tokenizer.inner.encode(text)
        words = re.findall(r"\w+|[^\w\s]", text.lower())
        assert tokenizer.inner.decode(tokens).split() == words
        assert len(tokens) == len(words)  # every word seen became one token


def test_the_shipped_vocabulary_fits_every_caption_into_the_context():
    tokenizer = Tokenizer(WEIGHTS_DIR / VOCABULARY)
    texts = sample_captions(400)
    assert not any(tokenizer.truncated(texts))
    tokens = tokenizer(texts)
    assert tokens.shape == (2000, CONTEXT_LENGTH)
    assert int(tokens.max()) < tokenizer.vocab_size
    assert tokenizer.truncated(["red circle " * 60]) == [True]


def test_words_never_seen_are_spelled_and_change_the_embedding():
    clip = load_model("shapes-clip-guide")
    tokens = clip.tokenizer(["a red circle", "a zebra, überraschend \U0001f993"])
    a, b = clip.encode_text(tokens)
    assert float((a - b).norm()) > 0.1
