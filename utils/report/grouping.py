"""Groups runs into the rows of a table: one row per method and settings, one run per seed."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict

from utils.errors import UsageError, printable
from utils.runs import identity
from utils.runs.reading import CONTENT, Run, read_metrics

LONGEST_VALUE = 80  # characters of an option's value in the name of a row


def newest_per_seed(runs: list[Run]) -> tuple[list[Run], list[str]]:
    """Of runs that agree in settings and seeds only the newest, and one line for each that was repeated."""
    repetitions = defaultdict(list)
    for run in runs:
        repetitions[run.label, frozenset(run.settings.items()), run.seeds].append(run)
    kept, notes = [], []
    for same in repetitions.values():
        # Folders are named by their time, so the last name is the newest run.
        newest = max(same, key=lambda run: run.folder.name)
        kept.append(newest)
        if len(same) > 1:
            notes.append(f"{newest.label}, seed {newest.seeds[0]}: {len(same)} runs, only {newest.folder.name} counts.")
    return kept, notes


def name_rows(runs: list[Run], over: str | None = None) -> dict[str, list[Run]]:
    """Row name -> runs of equal settings by seed. Rows of the same label are told apart by the options that differ.

    over: an option that may differ within a row.
    """
    groups: dict[tuple[str, str], dict[frozenset, list[Run]]] = defaultdict(lambda: defaultdict(list))
    knowing = {run.label for run in runs if identity.read(run.config) is not None}
    for run in runs:
        # Runs of older versions have fewer options and do not say what they read; beside others, that is said once.
        unlike = " data=unknown" if run.label in knowing and identity.read(run.config) is None else ""
        groups[run.label, unlike][frozenset(_without(run.settings, over).items())].append(run)
    rows: dict[str, list[Run]] = {}
    taken: Counter[str] = Counter()  # how many rows have a name, or begin with it and " ["
    for kind in sorted(groups, key=lambda kind: (_beside_host(kind[0]), kind[1])):
        label, settings, members = "".join(kind), [dict(group) for group in groups[kind]], list(groups[kind].values())
        differing = differing_keys(settings)
        # What was typed says most in fewest words; where that leaves two rows with one name, all that differs is told.
        names = [
            _name(label, options | _paths(differing, group[0]), [k for k in differing if typed(k, group)])
            for options, group in zip(settings, members, strict=True)
        ]
        if len(set(names)) < len(names):
            names = [_name(label, options, differing) for options in settings]
        for name, group in sorted(zip(names, members, strict=True), key=lambda pair: pair[0]):
            # A value may look like another option, and a label like a name with options.
            own = f"{name} [{taken[name] + 1}]" if taken[name] else name
            rows[own] = sorted(group, key=lambda run: str(run.seeds))
            taken.update({own, *(own[: match.start()] for match in re.finditer(r" \[", own))})
    return rows


def differing_keys(settings: list[dict[str, str]]) -> list[str]:
    """Options that are not the same in all of these settings, sorted."""
    return [key for key in sorted(set().union(*settings)) if len({options.get(key) for options in settings}) > 1]


def key_of(settings: dict[str, str], option: str) -> str | None:
    """Where settings have an option that is named without its part; None if nowhere.

    A host's comes before its wrapper's: it is the one that the host alone has too.
    """
    keys = (f"{part}.{option}" for part in ("host", "method", "run", "tasks", "data"))
    return next((key for key in keys if key in settings), None)


def _without(settings: dict[str, str], option: str | None) -> dict[str, str]:
    left_out = None if option is None else key_of(settings, option)
    return {key: value for key, value in settings.items() if key != left_out}


def _name(label: str, options: dict[str, str], shown: list[str]) -> str:
    return " ".join([label, *(f"{short(key)}={_shown(options.get(key, 'unset'))}" for key in shown)])


def _shown(value: str) -> str:
    """A value for the name of a row; a long one is cut, and told from others by its digest."""
    if len(value) <= LONGEST_VALUE:
        return value
    return f"{value[: LONGEST_VALUE - 10]}…{hashlib.sha256(value.encode()).hexdigest()[:8]}"


def typed(key: str, group: list[Run]) -> bool:
    """Whether an option (run.x, method.x, host.x), or the file that it names, was given on the command line."""
    option = key.partition(".")[2].removesuffix(CONTENT)
    return any((run.config.get("origin") or {}).get(option) == "command line" for run in group)


def _paths(keys: list[str], run: Run) -> dict[str, str]:
    """What of these keys names the content of a file -> the path that a run was given."""
    found = {}
    for key in keys:
        part, _, option = key.removesuffix(CONTENT).partition(".")
        path = (run.config.get(part) or {}).get(option)
        if key.endswith(CONTENT) and path is not None:
            found[key] = printable(str(path))
    return found


def _beside_host(label: str) -> tuple[str, bool]:
    """Sort key that puts "mepo (misa)" right after "misa"."""
    host = host_of(label)
    return (host or label.partition(" (")[0], bool(host))


def host_of(label: str) -> str:
    """X of "mepo (X)"; empty for a method without a host."""
    return label.partition(" (")[2].removesuffix(")")


def host_in(run: Run) -> str | None:
    """X of a run of "mepo (X)"; None for a run without a host."""
    return None if run.config.get("host") is None else host_of(run.label)


def wrapper_in(run: Run) -> str:
    """mepo of a run of "mepo (X)"; empty for a run without a host."""
    return "" if run.config.get("host") is None else run.label.partition(" (")[0]


def short(key: str) -> str:
    """An option's name as on the command line; a host's options keep their prefix."""
    return key.removeprefix("run.").removeprefix("method.").removesuffix(CONTENT)


# Notes under a table


def stream_notes(rows: dict[str, list[Run]]) -> list[str]:
    """Says for which seeds the rows did not see the same images in the same order."""
    streams = defaultdict(set)
    for run in (run for runs in rows.values() for run in runs):
        options = run.config["run"]
        seed = options["seed"] if options.get("stream_seed") is None else options["stream_seed"]
        streams[seed].add(run.stream)
    unequal = sorted(str(seed) for seed, hashes in streams.items() if len(hashes) > 1)
    return [f"Rows did not all see the same stream for seed {', '.join(unequal)}."] if unequal else []


def unknown_notes(runs: list[Run]) -> list[str]:
    """One line on runs that are grouped by their options alone."""
    counts = Counter(run.label for run in runs if identity.read(run.config) is None)
    listed = ", ".join(f"{label} ({count})" for label, count in sorted(counts.items()))
    return [f"Of older versions, which did not record what data and weights a run read: {listed}."] if counts else []


def stage_notes(finished: list[Run]) -> list[str]:
    counts = Counter(run.label for run in finished if not run.measured)
    listed = ", ".join(f"{label} ({count})" for label, count in sorted(counts.items()))
    return [f"Left out, stages without an accuracy (number of runs): {listed}."] if counts else []


def unfinished_notes(runs: list[Run]) -> list[str]:
    """One line on the runs that did not end and how far they came."""
    listed = ", ".join(f"{run.label}/{run.folder.name} ({_progress(run)})" for run in runs if run.summary is None)
    return [f"Left out, not finished: {listed}."] if listed else []


def _progress(run: Run) -> str:
    try:
        metrics = read_metrics(run.folder)
    except UsageError:  # often killed before its first line was whole
        return "no readable evaluation"
    return f"evaluated at {metrics['samples_seen'].max():,.0f} images" if len(metrics) else "no evaluation yet"
