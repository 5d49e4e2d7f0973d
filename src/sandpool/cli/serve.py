"""`sandpool serve` and `sandpool key`: the server, and who may use it."""

from __future__ import annotations

import importlib.util
import json
import logging
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import rich
from rich.table import Table

from sandpool import config as user_settings
from sandpool.errors import BackendUnavailable, InvalidSpec

_LEVELS = ("critical", "error", "warning", "info", "debug")


def run_server(config: Path | None, given: dict[str, Any], log_level: str) -> None:
    """Serve until told to stop.

    Args:
        config: A TOML file with the fields of `ServerSettings`.
        given: Fields from the command line, which go before those of the file.
        log_level: One of the levels of `logging`, in small letters.

    Raises `InvalidSpec` for settings that are wrong, and `BackendUnavailable` if the port or the
    state directory is taken.
    """
    _need_extra()
    from sandpool.server import serve, settings

    if log_level not in _LEVELS:
        raise InvalidSpec(f"--log-level is one of {', '.join(_LEVELS)}")
    logging.basicConfig(
        level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    fields = settings.load(config) if config is not None else {}
    fields |= {name: value for name, value in given.items() if value is not None}
    key = fields.pop("api_key", None)
    if key is not None:
        fields["keys"] = [*fields.get("keys", []), _operator_key(key)]
    fields.setdefault("state_dir", str(user_settings.state_dir()))
    checked = settings.parse(fields)
    anyio.run(
        serve,
        checked,
        _announce,
        backend_options={"use_uvloop": importlib.util.find_spec("uvloop") is not None},
    )


def add_key(state_dir: Path, name: str, namespace: str) -> str:
    """Make a key, remember its hash, and return it once it opens every server; `InvalidSpec`."""
    _need_extra()
    from sandpool.server import journal, keys, settings

    key = keys.new_key()
    fields = {"name": name, "sha256": keys.fingerprint(key), "namespace": namespace}
    checked = settings.parse({"keys": [fields]}).keys[0]
    with closing(_open(state_dir)) as database:
        journal.add_key(database, checked)
    time.sleep(keys.NOTICED_WITHIN)
    return key


def revoke_key(state_dir: Path, names: list[str]) -> None:
    """Forget keys, and return once no server that runs takes them; `InvalidSpec` without such."""
    _need_extra()
    from sandpool.server import journal, keys

    with closing(_open(state_dir)) as database:
        journal.remove_keys(database, names)
    time.sleep(keys.NOTICED_WITHIN)


def show_keys(state_dir: Path, *, as_json: bool) -> None:
    """Print the names of the keys, and their namespaces."""
    _need_extra()
    from sandpool.server import journal

    with closing(_open(state_dir)) as database:
        found = journal.read_keys(database)
    if as_json:
        print(json.dumps([{"name": key.name, "namespace": key.namespace} for key in found]))
        return
    table = Table("name", "namespace", box=None)
    for key in found:
        table.add_row(key.name, key.namespace)
    rich.print(table)


def _open(state_dir: Path) -> Any:
    from sandpool.server import journal

    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        return journal.connect(state_dir)
    except OSError as error:
        raise BackendUnavailable(f"{state_dir} cannot be used: {error.strerror}") from error


def _operator_key(key: object) -> dict[str, str]:
    from sandpool.server import keys

    if not isinstance(key, str):
        raise InvalidSpec("api_key is a text")
    return {"name": "operator", "sha256": keys.fingerprint(key)}


def _announce(url: str) -> None:
    print(f"sandpool serves on {url}", flush=True)


def _need_extra() -> None:
    needed = ("fastapi", "uvicorn")
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise BackendUnavailable(
            f"the server needs {' and '.join(missing)}: pip install 'sandpool[server]'"
        )
