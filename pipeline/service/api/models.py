"""Request and response bodies of the API."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Role = Literal["sender", "reader", "auditor", "admin"]
State = Literal["waiting", "reading", "answered", "unsupported", "failed", "deleted"]
Name = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[\w.@ -]+$")]
Password = Annotated[str, Field(min_length=12, max_length=256)]


class Body(BaseModel):
    """Base class of request bodies; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


class Result(BaseModel):
    """The outcome of one picture of a file.

    Attributes:
        id: Number of the result.
        engine: Number of the engine that judged it.
        frame: Frame of a multi-frame file; null for a single picture.
        status: ``ok``, ``unsupported`` or ``failed``.
        answer: Verdict of the most urgent finding; the status if there is none.
        region: Region of that finding.
        probability: Probability of that finding.
        record: The row of ``results.jsonl``: see ``fxpipe schema``.
        findings: All findings, most urgent first.
        flags: Quality warnings.
        error: Reason for the missing verdict.
        hidden: True until a blind reader has stored a verdict; the other fields are then null.
    """

    id: int
    engine: int
    frame: int | None
    status: str | None
    answer: str | None
    region: str | None
    probability: float | None
    record: dict[str, Any] | None
    findings: list[dict[str, Any]] | None
    flags: list[dict[str, str]] | None
    error: str | None
    hidden: bool = False


class Picture(BaseModel):
    """A received file, a row of the worklist.

    Attributes:
        id: Number of the picture.
        name: File name given by the sender.
        source: ``http``, ``dicom`` or ``watch``.
        received: Milliseconds since 1970, UTC.
        sha256: Digest of the content.
        state: Progress.
        answer: Most urgent answer of its results.
        region: Region of that answer.
        probability: Probability of that answer.
        study: Number of the study; null without one.
        review: Latest verdict of the readers; ``disputed`` if they disagree.
        hidden: See :class:`Result`.
    """

    id: int
    name: str
    source: str
    received: int
    sha256: str
    state: State
    answer: str | None
    region: str | None
    probability: float | None
    study: int | None
    review: str | None
    hidden: bool = False


class PictureWithResults(Picture):
    """A picture with its results.

    Attributes:
        held: Whether the picture is under a legal hold.
        results: Results of the engine with the displayed answer; empty until the picture is judged.
    """

    held: bool
    results: list[Result]


class PicturePage(BaseModel):
    """A page of the worklist.

    Attributes:
        pictures: Pictures in the requested order.
        next: Cursor of the next page; null on the last one.
    """

    pictures: list[Picture]
    next: str | None


class Login(Body):
    """Name and password."""

    name: Annotated[str, Field(max_length=128)]
    password: Annotated[str, Field(max_length=256)]


class Setup(Body):
    """The first administrator."""

    code: Annotated[str, Field(max_length=128)]
    name: Name
    password: Password


class Who(BaseModel):
    """The logged-in user."""

    name: str
    role: Role
    blind: bool


class TokenRequest(Body):
    """A token to create."""

    name: Name
    role: Role


class Token(BaseModel):
    """A token; the secret is included only in the response to its creation."""

    id: int
    name: str
    role: Role
    created: int
    revoked: int | None
    secret: str | None = None
