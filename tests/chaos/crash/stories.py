"""All stories by name."""

from typing import Final

from tests.chaos.crash import batches, books, doors, lists, scenarios

STORIES: Final = {story.name: story for story in (*scenarios.STORIES, *books.STORIES, *batches.STORIES, *lists.STORIES, *doors.STORIES)}
