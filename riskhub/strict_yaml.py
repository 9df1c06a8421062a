"""YAML files of an operator: a refusal names file and line, and repeats nothing of what they hold.

What they hold may be a secret, and PyYAML's own messages show the line that they complain about.
"""

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from riskhub.errors import RiskHubError


class YamlUnreadable(RiskHubError):
    """A file that can't be opened, or is not YAML."""


class _Loader(yaml.SafeLoader):
    """PyYAML lets the last of two equal keys win, without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem="a key is given twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def load(path: Path) -> Any:
    """What a YAML (or JSON) file holds.

    Raises:
        YamlUnreadable: naming the file, and the line where it stops being YAML.
    """
    try:
        return yaml.load(path.read_bytes(), _Loader)  # noqa: S506 - it is a SafeLoader
    except OSError as error:
        raise YamlUnreadable(f"{path} can't be read: {error.strerror}") from None
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        problem = re.sub(r"'.{2,}'", "'…'", error.problem or "wrong syntax")
        raise YamlUnreadable(f"{path}{line}: not YAML: {problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # Not UTF-8, an impossible date, nesting without end.
        raise YamlUnreadable(f"{path}: not YAML: {type(error).__name__}") from None
