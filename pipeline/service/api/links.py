"""Links of the OpenAPI document: which operation accepts the number in an answer."""

from __future__ import annotations

from .problems import Responses


def links(status: int, number: str, *operations: str) -> Responses:
    """The declaration of links for the answer of an operation.

    Args:
        status: Of the answer.
        number: JSON pointer into its body, such as ``/id``: the parameter ``number``.
        operations: Such as ``DELETE /pictures/{number}``; of a frame, the first one.
    """
    declared = {}
    for operation in operations:
        method, _, path = operation.partition(" ")
        pointer = f"/api/v1{path}".replace("~", "~0").replace("/", "~1")
        values: dict[str, str | int] = {"number": f"$response.body#{number}"}
        if "{frame}" in path:
            values["frame"] = 0
        declared[operation.replace(" /", "-").replace("/", ".").translate(_NAME)] = {
            "operationRef": f"#/paths/{pointer}/{method.lower()}", "parameters": values,
        }  # fmt: skip
    return {status: {"links": declared}}


_NAME = str.maketrans({"{": "", "}": ""})
"""Link names have letters, digits, full stops and hyphens only."""
