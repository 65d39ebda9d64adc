"""Which calls to AWS the code can make, read from its source, and which process makes them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

import ecs_async_executor

PACKAGE = Path(ecs_async_executor.__file__).parent
SERVICES, ADAPTER, COMMANDS = PACKAGE / "services", PACKAGE / "adapter", PACKAGE / "adapter" / "commands"

LIKE_THE_SCHEDULER = {"check.py", "launch.py"}
"""Commands that try what launches need, with the scheduler's own role."""
IN_THE_API_SERVER = {"task_log.py", "looking.py"}
"""Beside the folder ui."""

MODULES_BEHIND = {
    "make_backend": ("backend.py", "files.py", "stopped.py"),
    "make_console": ("console.py",),
    "inspector": ("details.py",),
    "details": ("details.py",),
    "log_streams": ("details.py",),
    "look_at_definitions": ("checking.py", "../logs.py"),
    "log_reader": ("../logs.py",),
    "account_quotas": ("../servicequotas.py",),
    "make_events": ("../events.py",),
    "look_at_events": ("../events.py",),
}
"""By the methods of ServiceAdapter that open a client, the modules of a service's folder that call through it."""


OF_SERVICES = {"events": "sqs"}
"""By the modules that all services share, the service that they call, if its name is another."""
OF_BATCHES = {
    "DeleteMessageBatch": "DeleteMessage",
    "ChangeMessageVisibilityBatch": "ChangeMessageVisibility",
}
"""The IAM actions of operations that do for many what another does for one."""


def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _text(node: ast.expr) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


@cache
def sources() -> Mapping[Path, ast.Module]:
    """Return the parsed files of the package, without the local services."""
    return {path: _parsed(path) for path in sorted(PACKAGE.rglob("*.py")) if PACKAGE / "local" not in path.parents}


@cache
def declared() -> Mapping[str, str]:
    """Return the operations in the tables of the services, each with the method of the client that it names."""
    found: dict[str, str] = {}
    for tree in sources().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Dict):
                for key, value in zip(node.keys, node.values, strict=True):
                    if isinstance(value, ast.Call) and _name(value.func) == "Operation" and key is not None:
                        found[_text(key)] = _text(value.args[0])
    return found


def _called(tree: ast.AST) -> set[str]:
    """Return the operations that something is called with, first: ``call("RunTask", ...)``, ``pages(...)``."""
    return {_text(call.args[0]) for call in _calls(tree) if call.args} & set(declared())


def service_of(path: Path) -> str:
    """Return the service that a module calls, as IAM names it: by its client, else by its folder or its name."""
    named = {
        _text(call.args[1])
        for call in _calls(sources()[path])
        if _name(call.func) == "Calls" and len(call.args) > 1
    }
    if named and (service := named.pop()):
        return service.replace("-", "")
    return path.parent.name if path.parent != SERVICES else OF_SERVICES.get(path.stem, path.stem)


@cache
def by_module() -> Mapping[Path, frozenset[str]]:
    """Return the IAM actions of the calls in each module that makes any."""
    found = {}
    for path, tree in sources().items():
        if SERVICES in path.parents and (operations := _called(tree)):
            found[path] = frozenset(f"{service_of(path)}:{OF_BATCHES.get(one, one)}" for one in operations)
    return found


def _of_module(service: str, name: str) -> frozenset[str]:
    path = (SERVICES / service / name).resolve()
    return by_module().get(path, frozenset()) if path.exists() else frozenset()


def _of_backend(service: str, methods: Iterable[str]) -> set[str]:
    """Return the actions behind methods of a service's backend; a sweep of stopped tasks is part of a search."""
    path = SERVICES / service / "backend.py"
    functions = {
        node.name: node
        for node in ast.walk(sources()[path])
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    seen: set[str] = set()
    ahead = list(methods)
    found: set[str] = set()
    while ahead:
        name = ahead.pop()
        if name in seen or name not in functions:
            continue
        seen.add(name)
        function = functions[name]
        found |= {f"{service}:{one}" for one in _called(function)}
        ahead += [
            node.attr
            for node in ast.walk(function)
            if isinstance(node, ast.Attribute) and _name(node.value) == "self"
        ]
        if name == "search":
            found |= _of_module(service, "stopped.py")
    return found


def files_of(role: str) -> list[Path]:
    """Return the files of the adapter that run with a role."""
    found: dict[str, list[Path]] = {"scheduler": [], "api-server": [], "operator": []}
    for path in sources():
        if ADAPTER not in path.parents:
            continue
        if path.parent == COMMANDS:
            found["scheduler" if path.name in LIKE_THE_SCHEDULER else "operator"].append(path)
        elif "ui" in path.relative_to(ADAPTER).parts or path.name in IN_THE_API_SERVER:
            found["api-server"].append(path)
        else:
            found["scheduler"].append(path)
    return found[role]


def _used(role: str, what: str) -> set[str]:
    """Return the names of methods that a role's files use of an ``adapter`` or a ``backend``."""
    return {
        node.attr
        for path in files_of(role)
        for node in ast.walk(sources()[path])
        if isinstance(node, ast.Attribute) and _name(node.value).lstrip("_") == what
    }


def actions(service: str, role: str) -> set[str]:
    """Return the IAM actions of all calls of a service that a process with this role can make."""
    used = _used(role, "adapter")
    found: set[str] = set()
    for method, modules in MODULES_BEHIND.items():
        if method not in used:
            continue
        if method == "make_backend" and role != "scheduler":
            found |= _of_backend(service, _used(role, "backend"))
        else:
            found = found.union(*(_of_module(service, name) for name in modules))
    if role == "scheduler":  # the engine calls the backend, and reads what dead containers printed last
        found = found.union(*(_of_module(service, name) for name in MODULES_BEHIND["make_backend"]))
    return found


def reached(service: str) -> set[Path]:
    """Return the modules that some method of the adapter leads to."""
    names = {name for modules in MODULES_BEHIND.values() for name in modules}
    return {(SERVICES / service / name).resolve() for name in names}


def printed_for_people() -> set[str]:
    """Return the IAM actions of the commands for the AWS CLI that our commands print."""
    found = set()
    for path in sources():
        for node in ast.walk(sources()[path]):
            if isinstance(node, ast.List) and [_text(one) for one in node.elts[:1]] == ["aws"]:
                service, command = (_text(one) for one in node.elts[1:3])
                found.add(f"{service}:{''.join(word.title() for word in command.split('-'))}")
    return found


def named() -> set[str]:
    """Return the IAM actions that messages and descriptions name."""
    pattern = re.compile(r"\b(?:ecs|batch|logs|iam|sts|sqs|s3|servicequotas):[A-Z]\w+")
    texts = (
        node.value
        for tree in sources().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    return {one for text in texts for one in pattern.findall(text)}


def files_that_use(*names: str) -> set[str]:
    """Return the files in which something of one of these names is called or imported."""
    found = set()
    for path, tree in sources().items():
        imported = {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        if not (imported | {_name(call.func) for call in _calls(tree)}).isdisjoint(names):
            found.add(path.relative_to(PACKAGE).as_posix())
    return found


def assumes_roles() -> bool:
    """Return whether credentials can be those of a role: an Airflow connection's, or a destination's."""
    return bool(files_that_use("AwsBaseHook", "AssumeRoleCredentialFetcher", "assume_role"))
