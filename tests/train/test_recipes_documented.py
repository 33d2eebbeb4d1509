"""Recipes in the documentation are recipes: every key in them exists and every value is in range."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from derain.train.recipe import parse_recipe

PAGE = Path(__file__).parents[2] / "docs" / "training.md"
BLOCKS = re.findall(r"^```toml\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
WHOLE = [block for block in BLOCKS if re.search(r"^system = ", block, re.MULTILINE)]


def test_the_page_shows_recipes() -> None:
    assert len(WHOLE) >= 2


@pytest.mark.parametrize("text", WHOLE, ids=lambda text: text.partition("\n")[0])
def test_a_recipe_of_the_page_is_valid(text: str) -> None:
    parse_recipe(text, "docs/training.md")
