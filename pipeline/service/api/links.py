"""Links of the OpenAPI document: operations that accept a number from a response."""

from __future__ import annotations

from .problems import Responses


def links(status: int, number: str, *operations: str) -> Responses:
    """Declare the links for the response of an operation.

    Args:
        status: Status of the response.
        number: JSON pointer into the body, such as ``/id``: the parameter ``number``.
        operations: Such as ``DELETE /pictures/{number}``; links to frames use the first frame.
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
"""Link names may contain only letters, digits, full stops and hyphens."""
