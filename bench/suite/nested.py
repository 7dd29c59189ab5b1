"""A component inside another one's fields, such as the conditioner that an image conditioner wraps."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import cached_property
from typing import Any, ClassVar

from pydantic import GetCoreSchemaHandler
from pydantic_core import core_schema

from bench.errors import SuiteError
from bench.keys import canonical_json
from bench.suite.blocks import Named, build_component
from bench.suite.yaml import Document, KeyPath, key_name


class _Inside(Document):
    """Errors of a block whose place in the file the outer component knows: they name the key inside."""

    def error(self, path: KeyPath, message: str) -> SuiteError:
        inside = path[2:]  # the table and the name are made up
        return SuiteError(f"{key_name(inside)}: {message}" if inside else message)


class Nested:
    """A checked component of :attr:`table`. Equal where the resolved blocks are equal.

    A dataclass's field annotated with a subclass takes a block with ``kind``, as the suite's table does.
    """

    table: ClassVar[str] = ""

    def __init__(self, block: dict[str, Any]):
        self.block = block

    @classmethod
    def of(cls, value: Any) -> Nested:
        """The component of a block. Raises SuiteError naming the key inside it."""
        if isinstance(value, cls):
            return value
        if not isinstance(value, dict):
            raise ValueError("a component is a mapping with 'kind'")
        made = cls(value)
        made.named  # noqa: B018 - checks the block
        return made

    @cached_property
    def named(self) -> Named[Any]:
        return build_component(_Inside({}, self.table), self.table, "inside", self.block)

    @property
    def config(self) -> Any:
        return self.named.config

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.named == other.named

    def __hash__(self) -> int:
        return hash((self.table, canonical_json(self.named.raw)))

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls.of,
            serialization=core_schema.plain_serializer_function_ser_schema(lambda value: value.named.raw),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        return {"x-table": cls.table}  # bench.suite.schema puts the table's entry here


class NestedConditioner(Nested):
    table = "conditioners"


def nested_in(config: Any) -> Iterator[Nested]:
    """The components in a configuration's fields, in order; those inside them are theirs."""
    if isinstance(config, Nested):
        yield config
    elif isinstance(config, tuple | list):
        for item in config:
            yield from nested_in(item)
    elif dataclasses.is_dataclass(config) and not isinstance(config, type):
        for item in dataclasses.fields(config):
            yield from nested_in(getattr(config, item.name))
