"""What `depthray recipe show` says of the options of an architecture."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from depthray.cli.recipe import commented, type_text
from depthray.config.recipe import read


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (Annotated[float, Field(gt=0, allow_inf_nan=False)], "number above 0"),
        (Annotated[int, Field(ge=0, le=512)], "whole number at least 0 and at most 512"),
        (Literal[0, 4], "one of 0, 4"),
        (bool, "true or false"),
        (float | None, "number or none"),
    ],
)
def test_types_are_words(annotation: Any, text: str) -> None:
    assert type_text(annotation) == text


def test_no_python_in_the_comments() -> None:
    lines = list(commented(read("unet-resnet34")))
    assert any(
        line.startswith("  max_depth: 10.0") and line.endswith("# number above 0; option of unet") for line in lines
    )
    assert not [line for line in lines if "Annotated" in line or "Field(" in line]
