"""
What ``airflow ecs-async check`` finds without a request: the executor's settings, and Airflow's around them.

May import everything of this package.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from airflow.configuration import conf
from airflow.exceptions import AirflowNotFoundException  # type: ignore[attr-defined]  # 3.1 has it only here
from airflow.models.connection import Connection

from ecs_async_executor.adapter import compat
from ecs_async_executor.adapter.commands.applied import rules_in_words
from ecs_async_executor.adapter.commands.changing_over import Change, change, replacement_for, replacement_of
from ecs_async_executor.adapter.commands.named import names_in_use
from ecs_async_executor.adapter.configuration import source_of
from ecs_async_executor.adapter.endpoint import port_setting
from ecs_async_executor.adapter.executor import AsyncExecutor
from ecs_async_executor.adapter.naming import class_name
from ecs_async_executor.adapter.reports import in_words
from ecs_async_executor.core.errors import ConfigurationError
from ecs_async_executor.core.limiter import PollPacer
from ecs_async_executor.services.findings import Finding, good, info, problem, warning
from ecs_async_executor.settings import Tuning

_DEFAULT_CONN_ID = "aws_default"
SLOW_SWEEP = 30.0
"""Seconds; a sweep of all containers that takes longer delays the news of what has ended."""


def look_around(executor: AsyncExecutor) -> Iterator[Finding]:
    """Yield what is found without a request."""
    adapter = executor.adapter
    yield from (warning("Settings", doubt) for doubt in adapter.doubts)
    yield good("Settings", adapter.destination)
    yield from rules_in_words(adapter, source_of(executor.team_name).section(adapter.tuning.section))
    yield _configured(executor)
    yield from _connections(executor)
    yield _parallelism(adapter.tuning, _launch_rate(executor))
    yield from _ports()


def _configured(executor: AsyncExecutor) -> Finding:
    """Say which executor this is about, and whether Airflow uses it."""
    cls, team = type(executor), executor.team_name
    source = source_of(team)
    adapter = executor.adapter
    sections = f"{source.section(adapter.aws_section)} and {source.section(adapter.tuning.section)}"
    this = f"{class_name(cls)}, sections {sections}" + (f", team {team}" if team else "")
    setting = f"[core] executor = {conf.get('core', 'executor', fallback='')!r}"
    configured = compat.configured_executors()
    if cls not in configured:
        if any(replacement_of(one) == class_name(cls) for one in configured) and (
            found := _still_the_providers(executor, configured)
        ):
            return found
        hint = f"set it to {class_name(cls)}" + (f" for team {team}" if team else "")
        return warning("Executor", f"{setting} does not name {class_name(cls)}, which is what is checked", hint)
    if team is not None and team not in {getattr(name, "team_name", None) for name in compat.executor_names()}:
        return warning("Executor", f"{setting} has no executor for team {team}, whose settings are checked")
    default = configured[0]
    use = "the default" if default is cls else f"for what names it; the default is {class_name(default)}"
    return good("Executor", f"{this}, {use}")


def _still_the_providers(executor: AsyncExecutor, configured: Iterable[type]) -> Finding | None:
    """Say what to set instead of the provider's executor; None if another team has it."""
    ours, team = class_name(type(executor)), executor.team_name
    setting = conf.get("core", "executor", fallback="")
    text = f"[core] executor = {setting!r} still names the provider's, and {ours} is what is checked"
    if (changed := change(setting, {ours}, team)) is not None:
        return warning(
            "Executor", text, _how_to_change(changed, ours, sent=executor.adapter.tuning.container_executors)
        )
    own = [one for one in configured if replacement_of(one) == ours and replacement_for(class_name(one)) is None]
    if own:
        path = class_name(own[0])
        return warning("Executor", f"{text}: {path} is a subclass of it", f"derive {path} from {ours} instead")
    return None


def _how_to_change(changed: Change, ours: str, *, sent: bool) -> str:
    """Return what to set, where, and what tasks that name the executor need."""
    used = set(names_in_use())
    hint = f"set it to {changed.setting!r} for schedulers, API servers and DAG processors"
    hint += "; containers get it from the executor" if sent else ", and in containers (container_executors is off)"
    named = f"executor={changed.alias!r}"
    if changed.alias in used:
        hint += f"; task instances name {changed.alias!r}, which the part before the colon keeps working"
    else:
        hint += f"; the part before the colon keeps {named} of tasks working: if no DAG says it, {ours} is enough"
    if lost := sorted(changed.lost & used):
        hint += f"; in tasks, change executor={' and executor='.join(map(repr, lost))} to {named}"
    return hint


def _connections(executor: AsyncExecutor) -> Iterator[Finding]:
    adapter = executor.adapter
    setting = f"{source_of(executor.team_name).section(adapter.aws_section)} conn_id"
    settings = {adapter.conn_id: setting} if adapter.conn_id else {}
    for one in adapter.rules.destinations.values():
        if one.conn_id:
            settings.setdefault(one.conn_id, "conn_id of a queue or placement")
    for conn_id, named_in in settings.items():
        yield _connection(conn_id, named_in)


def _connection(conn_id: str, setting: str) -> Finding:
    name = f"Connection {conn_id!r}"
    try:
        connection = Connection.get_connection_from_secrets(conn_id)
    except Exception as error:  # noqa: BLE001 - secrets backends raise anything
        if conn_id == _DEFAULT_CONN_ID and isinstance(error, AirflowNotFoundException):
            # The name is the default of the provider's conn_id, and its hook goes on without the connection.
            return info(name, "not defined: AWS's default credential chain is used, as the provider does")
        hint = f"create it (airflow connections add {conn_id} --conn-type aws), or set {setting} to nothing"
        return problem(name, in_words(error), hint)
    if connection.conn_type != "aws":
        return problem(name, f"its type is {connection.conn_type!r}", f"name one of type aws in {setting}")
    return good(name)


def _launch_rate(executor: AsyncExecutor) -> float:
    rates = executor.adapter.service.launch_rates
    return executor.adapter.tuning.launch_rate or min(rates.values(), default=executor.adapter.service.launch_rate)


def _parallelism(tuning: Tuning, launch_rate: float) -> Finding:
    """Compare Airflow's own limits with what the rates can do."""
    parallelism = conf.getint("core", "parallelism")
    if parallelism <= 0:
        return good("Parallelism", "[core] parallelism = 0 sets no limit")
    batches = math.ceil(parallelism / 100)
    sweep = PollPacer(tuning.poll_interval).interval(batches, tuning.describe_rate)
    if sweep > SLOW_SWEEP:
        return warning(
            "Parallelism",
            f"[core] parallelism = {parallelism} lets so many containers run that a look at all of them takes "
            f"{sweep:.0f} s, and ends become known as late",
            "raise describe_rate as far as AWS's quota allows, or lower parallelism",
        )
    words = f"[core] parallelism = {parallelism} tasks of each scheduler at once"
    words += f", which take {parallelism / launch_rate:.0f} s or more to launch"
    limits = [
        f"[{section}] {name} = {value}"
        for section, name in (("core", "max_active_tasks_per_dag"), ("scheduler", "max_tis_per_query"))
        if 0 < (value := conf.getint(section, name, fallback=0)) < parallelism
    ]
    return good("Parallelism", words + (f"; lower limits: {', '.join(limits)}" if limits else ""))


def _ports() -> Iterator[Finding]:
    """Find executors of one scheduler that would listen on one port."""
    of_port: dict[int, list[str]] = {}
    for tuning, team in _tunings(executor for _, executor in compat.our_executors(AsyncExecutor)):
        if tuning.status_port is not None:
            of_port.setdefault(tuning.status_port, []).append(port_setting(tuning, team))
    for port, settings in of_port.items():
        if len(settings) > 1:
            words = f"{' and '.join(settings)} are both {port}"
            yield problem("Status port", words, "give each a port of its own")


def _tunings(executors: Iterable[AsyncExecutor]) -> Iterator[tuple[Tuning, str | None]]:
    for executor in executors:
        try:
            yield executor.adapter.tuning, executor.team_name
        except ConfigurationError:  # noqa: PERF203 - found by the check of that executor
            continue
