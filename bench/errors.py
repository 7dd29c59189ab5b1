"""The errors a user can meet. Each message says where, what was found, what is allowed and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BenchError(Exception):
    """Base of every error that is the user's to mend; the command line prints it without a traceback."""


class SuiteError(BenchError):
    """A suite file or an override is wrong: the message names file, line and key."""


class DataError(BenchError):
    """A data set is missing, unreadable or empty."""


class WeightError(BenchError):
    """A weight file is missing, corrupt, or not of the expected format."""


class MetricError(BenchError):
    """A metric cannot be computed from the evidence it was given."""


class SamplingError(BenchError):
    """A sampler failed: a non-finite energy, too many failed samples."""


class ResultError(BenchError):
    """A stored run is missing, unreadable or of another schema."""


class ArtifactError(BenchError):
    """An artifact store cannot be opened, read or written, or an artifact in it is missing or corrupt."""


def nearest(word: str, allowed: Iterable[str]) -> str:
    """Returns ``" Did you mean 'x'?"`` for the closest allowed name, or an empty string."""
    match = difflib.get_close_matches(str(word), [str(name) for name in allowed], n=1, cutoff=0.5)
    return f" Did you mean '{match[0]}'?" if match else ""
