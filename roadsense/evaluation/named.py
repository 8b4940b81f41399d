"""Files of ``params/`` by name, or files of one's own by path."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from roadsense._data import params_dir
from roadsense.errors import ParamsError, UsageError, explain, nearest

_Schema = TypeVar("_Schema", bound=BaseModel)


def shipped(folder: str) -> list[str]:
    """Names of the files that are shipped in a folder of ``params/``."""
    return sorted(path.stem for path in (params_dir() / folder).glob("*.yaml"))


def read_named(name_or_path: str, folder: str, what: str, schema: type[_Schema]) -> _Schema:
    """Reads a YAML file of ``params/<folder>`` by name, or any by a path with a slash or an ending.

    Args:
        name_or_path: which.
        folder: below ``params/``.
        what: it is called in messages.
        schema: it must fit.

    Raises:
        UsageError: nothing has that name.
        ParamsError: the file does not parse or states something impossible.
    """
    is_file = "/" in name_or_path or name_or_path.endswith((".yaml", ".yml"))
    if not is_file and name_or_path not in shipped(folder):
        raise UsageError(
            f"{what} {name_or_path!r} is unknown; {nearest(name_or_path, shipped(folder))} A file is given by its path,"
            " ending in .yaml."
        )
    path = Path(name_or_path) if is_file else params_dir() / folder / f"{name_or_path}.yaml"
    try:
        return schema.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ParamsError(f"{path}: cannot be read ({error.strerror}); give another file.") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ParamsError(f"{path}: is no YAML ({str(error).splitlines()[0]}); correct it.") from None
    except ValidationError as error:
        raise ParamsError(f"{path}: {explain(error, schema)}. Correct it.") from None
