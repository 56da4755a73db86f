"""``fxpipe schema``: what other systems may rely on."""

from __future__ import annotations

import json

import click


@click.command(name="schema")
def command() -> None:
    """Print the JSON Schema of a line of results.jsonl.

    Its flat keys are also the columns of results.csv and results.parquet.

    Its version is in $id and in each line's schema_version; it is raised when a column changes
    its name or meaning.
    """
    from ..report.results_schema import json_schema

    click.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))
