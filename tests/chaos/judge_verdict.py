"""What a check says: held, broken with examples, or not checked, which is as bad as broken."""

from dataclasses import dataclass, field
from typing import Final

MOST_EXAMPLES: Final = 20


@dataclass(slots=True)
class Verdict:
    """One invariant over one run. `checked` counts what was looked at: nothing looked at is no proof."""

    invariant: str
    says: str
    checked: int = 0
    broken: int = 0
    examples: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    """Why it could not be checked, wholly or for some."""

    def fail(self, example: str) -> None:
        self.broken += 1
        if len(self.examples) < MOST_EXAMPLES:
            self.examples.append(example)

    def cannot(self, why: str) -> None:
        if len(self.unchecked) < MOST_EXAMPLES:
            self.unchecked.append(why)

    @property
    def ok(self) -> bool:
        return not self.broken and not self.unchecked and self.checked > 0

    def __str__(self) -> str:
        if self.broken:
            word = f"BROKEN {self.broken} of {self.checked}"
        elif self.unchecked or not self.checked:
            word = "UNCHECKED" + (f" {self.checked} looked at" if self.checked else "")
        else:
            word = f"holds for {self.checked}"
        lines = [f"{self.invariant:4} {word}: {self.says}"]
        return "\n".join(lines + [f"       {text}" for text in (*self.examples, *self.unchecked)])
