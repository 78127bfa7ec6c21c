"""Measure streamstack and its peers: `make bench`, or `make bench ARGS="B1 --rounds 1 --quick"`."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cases.burst import Burst
from cases.fanout import Fanout
from cases.first_chunk import FirstChunk
from cases.growth import Growth
from cases.open_streams import OpenStreams
from cases.relay import Relay
from cases.rows import Rows
from cases.small import Small
from cases.validation import Validation
from machine import allow_files, cores, describe, pin
from picture import draw
from report import write_report
from results import Alone, Compared, LeftOutError, Options, Samples
from servers import OURS, PEERS, Server, available, ourselves
from verdicts import judge

HERE = Path(__file__).parent
COMPARED: Sequence[Compared] = (Burst(), Relay(), Rows(), Small(), OpenStreams(), FirstChunk(), Fanout())
ALONE: Sequence[Alone] = (Validation(), Growth())
KEYS = sorted([*(case.key for case in COMPARED), *(case.key for case in ALONE)])


def main() -> int:
    """Measure what is asked for; return 1 where a target is missed and `--strict` is given."""
    asked = _parse()
    options = Options(
        rounds=asked.rounds, quick=asked.quick, peers=frozenset({OURS, *asked.peers} if asked.peers else ())
    )
    chosen = {key.upper() for key in asked.cases} or set(KEYS)
    if unknown := chosen - set(KEYS):
        print(f"there is no case {', '.join(sorted(unknown))}: choose from {', '.join(KEYS)}")
        return 2
    allow_files()
    of_servers, of_load = cores()
    pin(of_load)
    if of_servers == of_load:
        print("one core only: server and load share it, ratios will be flatter than they are")
    place = HERE / "results" / ("quick.json" if asked.quick else "latest.json")
    results = json.loads(place.read_text()) if place.exists() else {}
    kept = results.setdefault("cases", {})
    for compared in COMPARED:
        if compared.key in chosen:
            try:
                kept[compared.key] = _stamped(compare(compared, options), options)
            except LeftOutError as reason:
                kept.pop(compared.key, None)
                _note("")
                print(f"{compared.key} is left out: {reason}", file=sys.stderr)
    for alone in ALONE:
        if alone.key in chosen:
            rows, findings = alone.run(options)
            kept[alone.key] = _stamped(
                {
                    "title": alone.title,
                    "method": alone.method,
                    "rows": rows,
                    "verdicts": [
                        {"name": f.name, "figure": f.figure, "must": f.must, "kept": f.kept} for f in findings
                    ],
                },
                options,
            )
    results["cases"] = dict(sorted(kept.items()))
    results["machine"] = describe() | {"node": _ask(["node", "--version"])}
    _save(place, results)
    shown = {key: case for key, case in results["cases"].items() if key in chosen}
    print(write_report({**results, "cases": shown}))
    missed = [v for case in shown.values() for v in case["verdicts"] if not v["kept"]]
    return 1 if missed and asked.strict else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"which: {', '.join(KEYS)} (all)")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each peer (5)")
    parser.add_argument("--quick", action="store_true", help="short measurements, saved as results/quick.*")
    parser.add_argument("--peers", type=lambda text: text.split(","), default=[], help="only these, by commas")
    parser.add_argument("--strict", action="store_true", help="exit with 1 where a target is missed")
    return parser.parse_args()


def compare(case: Compared, options: Options) -> dict[str, Any]:
    """Measure all peers of a case in turns; return what is saved of it."""
    names = [name for name in case.peers if not options.peers or name in options.peers]
    missing = [name for name in names if not available(name)]
    names = [name for name in names if name not in missing]
    samples = Samples()
    contents: dict[str, Any] = {}
    with ExitStack() as stack:
        behind = case.behind(stack)

        def server_of(name: str) -> Server:
            peer = ourselves(behind.definitions) if name == OURS else PEERS[name]
            return Server(peer, behind.environment)

        servers = {}
        if not case.fresh:
            servers = {name: stack.enter_context(server_of(name)) for name in names}
        for number in range(options.rounds):
            # Each round begins with another, so that none has the same one before it always.
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                _note(f"{case.key} round {number + 1} of {options.rounds}: {name}")
                with ExitStack() as own:
                    server = servers.get(name) or own.enter_context(server_of(name))
                    if name not in contents:
                        contents[name] = case.content(server)
                        if contents[name] != contents[names[turn]]:
                            raise SystemExit(
                                f"{case.key}: {name} answers other content than {names[turn]}:\n"
                                f"{str(contents[name])[:600]}\n{str(contents[names[turn]])[:600]}"
                            )
                    samples.add(name, case.measure(server, options))
    _note("")
    return {
        "title": case.title,
        "method": case.method,
        "metrics": [{"name": m.name, "unit": m.unit, "more": m.more} for m in case.metrics],
        "missing": missing,
        "samples": samples.by_peer,
        "verdicts": judge(case, samples),
    }


def _stamped(case: dict[str, Any], options: Options) -> dict[str, Any]:
    return case | {
        "measured": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "rounds": options.rounds,
        "quick": options.quick,
        "commit": _ask(["git", "rev-parse", "--short", "HEAD"]),
    }


def _ask(command: list[str]) -> str:
    """Return what a program says in one line, empty where it is not there."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=HERE, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _save(place: Path, results: dict[str, Any]) -> None:
    place.parent.mkdir(exist_ok=True)
    place.write_text(json.dumps(_rounded(results), indent=1) + "\n")
    place.with_suffix(".md").write_text(write_report(results))
    if (picture := draw(results["cases"])) is not None:
        place.with_suffix(".svg").write_text(picture)


def _rounded(value: Any) -> Any:
    """Return figures with the digits that mean something."""
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_rounded(inner) for inner in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _note(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
    elif text:
        print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
