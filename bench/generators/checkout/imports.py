"""Imports from a repository's work tree without leaving traces in the process.

Official repositories are no packages: their modules are called ``utils``, ``model``, ``torch_utils``, and two
checkouts have several of the same name. Each checkout's modules are in ``sys.modules``, and its root on
``sys.path``, only inside :meth:`Checkout.active`.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from bench.errors import WeightError

_LOCK = threading.RLock()
# Never a checkout's own, whatever lies in its root.
_NOT_OWN = frozenset(sys.stdlib_module_names) | {"bench", "torch", "numpy", "scipy", "PIL"}


class Checkout:
    """One work tree; :meth:`at` gives the same object for the same folder.

    Code that imports on its first call (custom operators) must be called once while active.
    """

    _known: ClassVar[dict[Path, Checkout]] = {}

    def __init__(self, root: Path):
        self.root = root
        folders = {path.parent.name for path in root.glob("*/*.py")}
        folders |= {path.parent.parent.name for path in root.glob("*/*/*.py")}
        self.names = (folders | {path.stem for path in root.glob("*.py")}) - _NOT_OWN
        self._modules: dict[str, ModuleType] = {}
        self._depth = 0

    @classmethod
    def at(cls, repo: Path | str, *, source: str, needs: tuple[str, ...] = ()) -> Checkout:
        """The checkout at ``repo``. ``source`` is the address that the message names, ``needs`` files that a
        checkout of the right repository has.

        Raises WeightError where the folder or one of these files is missing.
        """
        root = Path(repo)
        get = f"Get it: git clone {source} {root}. Put it there or correct 'repo' in the suite."
        if not root.is_dir():
            raise WeightError(f"repo '{root}' is missing: the checkout of {source}. {get}")
        missing = [name for name in needs if not (root / name).exists()]
        if missing:
            raise WeightError(f"repo '{root}' is no checkout of {source}: it lacks '{missing[0]}'. {get}")
        root = root.resolve()
        return cls._known.setdefault(root, cls(root))

    @contextmanager
    def active(self) -> Iterator[None]:
        """The checkout's modules can be imported; afterwards the process is as before, but for other imports.

        One checkout is active at a time; other threads wait.
        """
        with _LOCK:
            if self._depth == 0:
                hidden = self._taken()
                sys.modules.update(self._modules)
            stand_in = _pkg_resources()
            sys.path.insert(0, str(self.root))
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                sys.path.remove(str(self.root))
                if stand_in is not None:
                    sys.modules.pop("pkg_resources", None)
                if self._depth == 0:
                    self._modules = self._taken()
                    sys.modules.update(hidden)

    def load(self, module: str) -> Any:
        """A module of the checkout. Raises WeightError naming a package that it needs and that is missing."""
        try:
            with self.active():
                return importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise WeightError(
                f"repo '{self.root}': '{module}' needs the package '{error.name}', which is not installed. "
                "Install what the repository's README lists."
            ) from error

    def _is_own(self, name: str) -> bool:
        # Operators that a checkout compiles are modules of their own: bias_act_plugin in three repositories.
        top = name.partition(".")[0]
        return top in self.names or top.endswith("_plugin")

    def _taken(self) -> dict[str, ModuleType]:
        """The modules of these names, removed from ``sys.modules``."""
        return {name: sys.modules.pop(name) for name in list(sys.modules) if self._is_own(name)}


def _pkg_resources() -> ModuleType | None:
    """A stand-in in ``sys.modules`` where setuptools no longer has pkg_resources, of which the repositories
    of 2021 use ``parse_version`` alone; else None."""
    if "pkg_resources" in sys.modules or importlib.util.find_spec("pkg_resources") is not None:
        return None
    from packaging.version import parse

    module = ModuleType("pkg_resources")
    module.parse_version = parse  # type: ignore[attr-defined]
    sys.modules["pkg_resources"] = module
    return module
