"""Writes ``docs/reference.md`` from the commands and settings: ``make reference``."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import click
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from pipeline.cli import main
from pipeline.config import RunConfig
from stages.export.export_runs import ExportConfig
from stages.settings import FractureConfig, RegionConfig

PAGE = Path(__file__).parents[1] / "docs/reference.md"
SETTINGS: dict[str, tuple[str, type[BaseModel]]] = {
    "Settings of a run": ("`fxpipe run`, `bench` and `evaluate`", RunConfig),
    "Settings of a region run": (
        "`fxpipe train-stage region` and `crossval region`",
        RegionConfig,
    ),
    "Settings of a fracture run": (
        "`fxpipe train-stage fracture` and `crossval fracture`",
        FractureConfig,
    ),
    "Settings of an export": ("`fxpipe export`", ExportConfig),
}


def reference() -> str:
    """The page, in Markdown."""
    lines = [
        "# Reference",
        "",
        "`make reference` writes this page from the code. Settings go into a TOML file,",
        "`--config FILE`, or on the command line, `--set key=value`, with a dot after a section.",
        "",
    ]
    context = click.Context(main, info_name="fxpipe")
    for name, command in _commands(main, context, "fxpipe"):
        lines += [f"## {name}", "", _sentence(command.help or ""), "", *_options(command), ""]
    for title, (commands, model) in SETTINGS.items():
        lines += [f"## {title}", "", f"For {commands}.", "", *_settings(model), ""]
    return "\n".join(lines).rstrip() + "\n"


def _commands(
    group: click.Group, context: click.Context, name: str
) -> Iterator[tuple[str, click.Command]]:
    for word in group.list_commands(context):
        command = group.get_command(context, word)
        assert command is not None, word
        if isinstance(command, click.Group):
            yield from _commands(command, context, f"{name} {word}")
        else:
            yield f"{name} {word}", command


def _options(command: click.Command) -> list[str]:
    rows = ["| option | default | meaning |", "|---|---|---|"]
    context = click.Context(command)
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            rows.append(f"| `{parameter.make_metavar(context)}` | | argument |")
            continue
        assert isinstance(parameter, click.Option)
        names = ", ".join((*parameter.opts, *parameter.secondary_opts))
        value = "" if parameter.is_flag else f" {parameter.make_metavar(context)}"
        has_default = parameter.show_default and not parameter.is_flag
        default = f"`{parameter.default}`" if has_default else ""
        needed = "required; " if parameter.required else ""
        meaning = f"{needed}{(parameter.help or '').rstrip('.')}"
        if parameter.multiple and "repeat" not in meaning:
            meaning += "; repeatable"
        rows.append(f"| `{_cell(names + value)}` | {default} | {_cell(meaning)} |")
    return rows if len(rows) > 2 else []


def _settings(model: type[BaseModel]) -> list[str]:
    rows = ["| setting | default | meaning |", "|---|---|---|"]
    for key, default, meaning in keys(model):
        rows.append(f"| `{key}` | {_cell(default)} | {_cell(meaning)} |")
    return rows


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    meanings: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if issubclass(base, BaseModel):
            meanings |= _attributes(base)
    defaults = model()
    for name, field in model.model_fields.items():
        value = getattr(defaults, name)
        if isinstance(value, BaseModel):
            yield from _keys_of(value, f"{prefix}{name}.", type(value))
            continue
        assert field.default is not PydanticUndefined or field.default_factory, name
        yield prefix + name, _markdown(value), meanings.get(name, "")


def _keys_of(
    value: BaseModel, prefix: str, model: type[BaseModel]
) -> Iterator[tuple[str, str, str]]:
    """Keys of a section; their defaults are those of the model that contains it."""
    for key, _, meaning in keys(model):
        default: object = value
        for part in key.split("."):
            default = getattr(default, part)
        yield prefix + key, _markdown(default), meaning


def _attributes(model: type[BaseModel]) -> dict[str, str]:
    """The ``Attributes`` of a docstring in Google style, one entry for each name."""
    _, _, listed = (inspect.getdoc(model) or "").partition("Attributes:\n")
    meanings_by_name: dict[str, str] = {}
    for entry in re.split(r"\n(?=    \S)", listed.split("\n\n")[0]):
        names, _, meaning = entry.strip().partition(":")
        for name in names.split(", "):
            meanings_by_name[name.rpartition(".")[2]] = _sentence(meaning)
    return meanings_by_name


def _markdown(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple | list):
        return "`[" + ", ".join(_markdown(part).strip("`") for part in value) + "]`"
    return f"`{value}`"


def _sentence(text: str) -> str:
    """The text on one line, with Sphinx markup replaced by Markdown."""
    flat = " ".join(text.replace("\b", "").split())
    flat = re.sub(r":\w+:`[~.]*([^`]+)`", r"`\1`", flat)
    return flat.replace("``", "`")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
