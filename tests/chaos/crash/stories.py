"""All stories by name."""

from typing import Final

from tests.chaos.crash import books, scenarios

STORIES: Final = {story.name: story for story in (*scenarios.STORIES, *books.STORIES)}
