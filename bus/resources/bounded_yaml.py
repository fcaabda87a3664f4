"""YAML that others write, read without letting a few lines take the stack or the memory.

libyaml's reader calls itself for each level, and ends the process when the stack is full; merge
keys copy what aliases lead to, so that ten short lines may say a billion members.
"""

from typing import Final

import yaml

MERGE: Final = "tag:yaml.org,2002:merge"


class TooMuch(ValueError):
    """It is nested too deeply, or its merge keys say too much."""


class BoundedLoader(yaml.CSafeLoader):
    """A safe loader whose merge keys bring in at most `most_merged` members together."""

    most_merged = 100_000

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """What is merged into `node`, written out. Raises TooMuch."""
        for key, value in node.value:
            if key.tag != MERGE:
                continue
            several = value.value if isinstance(value, yaml.SequenceNode) else [value]
            for one in several:
                if isinstance(one, yaml.MappingNode):
                    self.flatten_mapping(one)
                    self.most_merged -= 1 + len(one.value)
                    if self.most_merged < 0:
                        raise TooMuch("merge keys say too much")
        super().flatten_mapping(node)


def check_depth(text: str | bytes, deepest: int, loader: type[yaml.CSafeLoader]) -> None:
    """Raises TooMuch when mappings and lists of `text` stand in more than `deepest` others.

    Raises yaml.YAMLError for what is no YAML.
    """
    depth = 0
    for event in yaml.parse(text, Loader=loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > deepest:
                raise TooMuch("nested too deeply")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
