"""``fxpipe schema``: prints the JSON Schema of the results."""

from __future__ import annotations

import json

import click


@click.command(name="schema")
def command() -> None:
    """Print the JSON Schema of a line of results.jsonl.

    Its flat keys are also the columns of results.csv and results.parquet.

    The version is in $id and in schema_version of each line. It is raised when the name or meaning
    of a column changes.
    """
    from ..report.results_schema import json_schema

    click.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))
