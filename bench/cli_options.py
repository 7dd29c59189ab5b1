"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SuiteArgument = Annotated[
    Path, typer.Argument(metavar="SUITE", help="Suite file (YAML).", show_default=False)
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH.TO.KEY=VALUE", help="Override a key of the suite; repeatable."),
]
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URL",
        help="Artifact store: a folder, s3://, gs:// or memory://. [default: artifacts in the cache folder]",
        envvar="TR0N_BENCH_STORE",
        show_default=False,
        show_envvar=False,
    ),
]
DeviceOption = Annotated[str, typer.Option(help="auto (CUDA where there is one), cpu or cuda.")]
