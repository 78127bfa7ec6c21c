"""The step graph: its edges are the ways that runs take, and it says of each step what it reads, binds and crosses."""

from __future__ import annotations

import asyncio
import dis
import json
import sys
from collections.abc import Iterator
from itertools import pairwise
from types import FrameType
from typing import Any

import pytest

from streamstack.language.definition import Endpoint
from streamstack.language.graph import EdgeKind, Graph, Node
from streamstack.language.values import MISSING
from streamstack.runtime.run import Context, Run
from streamstack.spec import Nesting
from tests.collector import Collector
from tests.runtime.test_stacks_at_random import SAY, Writer
from tests.stacks import plan_of


def graph_of(stack: str) -> Graph:
    """Return the graph of a stack."""
    return Graph(plan_of(stack).endpoint)


def edges_of(stack: str) -> list[str]:
    """Return the edges of a stack as texts, nodes by their numbers, in order."""
    return sorted(shown(graph_of(stack)))


def shown(graph: Graph) -> Iterator[str]:
    """Yield each edge as a text."""
    for edge in graph.edges:
        source = 0 if edge.source is None else edge.source.number
        target = "end" if edge.target is None else edge.target.number
        yield f"{source} {edge.kind.value} {target}" + (f" ({edge.label})" if edge.label else "")


def test_steps_follow_one_another() -> None:
    """From the start to the end."""
    assert edges_of("- stream: 1\n- stream: 2") == ["0 next 1", "1 next 2", "2 next end"]
    assert edges_of("[]") == ["0 next end"]


def test_a_condition_beside_a_step() -> None:
    """What leaves only when it is true has a way on; another step needs no edge of its own."""
    assert edges_of("- return: 1\n  when: << 1 == 1 >>\n- stream: 1\n  when: << 1 == 1 >>") == [
        "0 next 1",
        "1 branch 2 (when false)",
        "1 return end",
        "2 next end",
    ]


def test_choices() -> None:
    """Each alternative, and the way past them without `else`."""
    assert edges_of(
        """
        - if:
            condition: true
            then: [{stream: 1}]
            elseIf: [{condition: true, then: []}, {condition: true, then: [{throw: x}]}]
        - switch: {value: 1, cases: {a: [{stream: 2}]}, default: [{stream: 3}]}
        """
    ) == [
        "0 next 1",
        "1 branch 2 (then)",
        "1 branch 3 (else if 2)",
        "1 branch 4 (else if 1)",
        "1 branch 4 (otherwise)",
        "2 next 4",
        "3 error end",
        "4 branch 5 (a)",
        "4 branch 6 (default)",
        "5 next end",
        "6 next end",
    ]


def test_loops() -> None:
    """The way back, `break` and `continue`, of the innermost loop."""
    assert edges_of(
        """
        - forEach:
            in: [1]
            do:
              - repeat: {times: 2, do: [{break: , when: << loop.first >>}]}
              - continue:
                when: << item == 1 >>
              - break
        - stream: 1
        """
    ) == [
        "0 next 1",
        "1 body 2 (each turn)",
        "1 next 6 (at the end)",
        "2 body 3 (each turn)",
        "2 next 4 (at the end)",
        "3 back 2 (when false)",
        "3 break 4",
        "4 branch 5 (when false)",
        "4 continue 1",
        "5 break 6",
        "6 next end",
    ]


def test_errors_and_finally() -> None:
    """A thrown error leads to its `catch`, every exit through `finally`, and from there where it was going."""
    graph = graph_of(
        """
        - forEach:
            in: [1]
            do:
              - try:
                  do:
                    - throw: x
                      when: << item == 1 >>
                    - break
                  catch: {do: [{return: 1}]}
                  finally: [{log: 1}]
        """
    )
    assert sorted(shown(graph)) == [
        "0 next 1",
        "1 body 2 (each turn)",
        "1 next end (at the end)",
        "2 body 3",
        "2 error 5 (an error in `do`)",
        "2 error 6 (an error in `catch`)",
        "3 branch 4 (when false)",
        "3 error 5",
        "4 break 6",
        "5 return 6",
        "6 break end",
        "6 error end",
        "6 return end",
    ]
    broken = next(edge for edge in graph.edges if edge.kind is EdgeKind.BREAK)
    assert broken.crosses[-1] == "functionStack[0].forEach.do[0].try.finally"
    returned = [edge for edge in graph.edges if edge.kind is EdgeKind.RETURN and not edge.target]
    assert returned[0].crosses == ("functionStack[0].forEach.do", "functionStack")


def test_branches_frames_and_later() -> None:
    """`return` ends a branch, work per item, what makes a cached value; `after` runs at the end."""
    assert edges_of(
        """
        - parallel: {branches: {a: [{return: 1}], b: []}}
        - streams.map: {in: [1], do: [{return: << item >>}]}
          as: made
        - cache.use: {key: k, ttl: 1s, do: [{return: 1}]}
          as: kept
        - after: {do: [{log: 1}]}
        - stream: 1
          retry: {times: 2}
        """
    ) == [
        "0 next 1",
        "1 parallel 2 (a)",
        "1 parallel 3 (b)",
        "2 return 3",
        "3 body 4 (each item, when it is read)",
        "3 next 5",
        "4 back 3",
        "5 branch 6 (to make the value)",
        "5 next 7",
        "6 return 7",
        "7 after 8 (when the run has ended)",
        "7 next 9",
        "8 after end",
        "9 next end",
        "9 retry 9 (retry up to 2 times)",
    ]


def test_what_a_node_says() -> None:
    """What it binds, sends, and how it is left."""
    graph = graph_of(
        """
        - streams.filter: {in: << input.a >>, where: << item > 1 >>}
          as: rows
        - forEach: {in: << rows >>, as: row, do: [{set: {a: 1}}, {stream: << row >>}]}
        - parallel: {branches: {b: [{set: {c: 1}}, {return: 1}]}}
        - collect: << b >>
          as: d
        """
    )
    made, loop, _, sent, parallel, _, _, collect = graph.nodes
    assert (made.emits, sent.emits) == (False, True)
    assert [*map(sorted, (loop.bound, parallel.bound, collect.bound))] == [["a"], ["b"], ["d"]]
    assert graph.root.bound == {"rows", "a", "b", "d"}
    assert parallel.blocks[0].exits == {"frame"}
    assert graph.root.exits == frozenset()
    assert loop.inner().binds[0][0] == "row"
    with pytest.raises(KeyError):
        loop.inner("else")


def test_paths_are_those_of_the_steps() -> None:
    """A block stands where its steps say they stand."""
    for seed in range(40):
        for block in blocks_of(random_plan(seed).endpoint):
            for index, node in enumerate(block.nodes):
                assert node.path == f"{block.path}[{index}]"


def blocks_of(endpoint: Endpoint) -> Iterator[Any]:
    """Yield every block of an endpoint."""
    graph = Graph(endpoint)
    yield graph.root
    for node in graph.nodes:
        yield from node.blocks


def random_plan(seed: int) -> Any:
    """Compile a stack written at random."""
    writer = Writer(seed)
    steps = [{"set": {"held": []}}, *writer.stack(), *writer.stack()]
    return plan_of("\n".join(f"- {json.dumps(step)}" for step in steps), also=SAY)


#: Functions of generated code that run at another time than the line they stand at.
_OWN_TIME = ("branch_", "body_", "turn_", "after_", "each_")


#: What ends a block: it has the line of some step in it, which does not run then.
_ENDS = frozenset(
    {"JUMP_FORWARD", "JUMP_BACKWARD", "JUMP_BACKWARD_NO_INTERRUPT", "RETURN_VALUE", "NOP"}
    | {"POP_EXCEPT", "RERAISE", "COPY", "POP_TOP", "SWAP"}
)
#: Functions whose steps may leave no instruction of their own.
_UNSEEN = frozenset({"set", "try", "if", "while", "break", "continue", "return"})


def instruction(frame: FrameType) -> str:
    """Return the name of the instruction that a frame is about to run; that of the next one behind a constant."""
    code, at = frame.f_code.co_code, frame.f_lasti
    while dis.opname[code[at]] in ("EXTENDED_ARG", "LOAD_CONST"):
        at += 2
    return dis.opname[code[at]]


class Ways:
    """Notes which step runs after which, in each piece of generated code that runs by itself."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.ways: dict[FrameType, list[Node]] = {}

    def trace(self, frame: FrameType, event: str, argument: object) -> Any:
        sites = frame.f_globals.get("__sites__")
        if sites is None:
            return None
        if event == "line" and instruction(frame) not in _ENDS:
            step = sites[frame.f_lineno - 1].step
            owner: FrameType | None = frame
            while owner is not None and not owner.f_code.co_name.startswith((*_OWN_TIME, "stack")):
                owner = owner.f_back
            try:
                node = None if step is None else self.graph.node(step)
            except KeyError:
                node = None  # of the function that is called
            if node is not None and owner is not None and not owner.f_code.co_name.startswith("each_"):
                way = self.ways.setdefault(owner, [])
                if not way or way[-1] is not node:
                    way.append(node)
        return self.trace


def followers(graph: Graph, plan: Any) -> dict[Node, set[Node]]:
    """Return what may follow each step, through such as are not seen."""
    after: dict[Node, set[Node]] = {node: set() for node in graph.nodes}
    for edge in graph.edges:
        if edge.source is not None and edge.target is not None:
            after[edge.source].add(edge.target)
    unseen = {
        node
        for node in graph.nodes
        if (node.step.function.name in _UNSEEN and not node.written)
        or (node.step.when is not None and node.step.when.constant is not MISSING)
    }
    for node in graph.nodes:
        waiting = [each for each in after[node] if each in unseen]
        while waiting:
            new = after[waiting.pop()] - after[node]
            after[node] |= new
            waiting += new & unseen
    return after


def ancestors(node: Node) -> Iterator[Node]:
    """Yield the steps around a step."""
    owner = node.block.owner
    while owner is not None:
        yield owner
        owner = owner.block.owner


@pytest.mark.parametrize("first", range(0, 120, 20))
async def test_runs_take_the_ways_of_the_graph(first: int) -> None:
    """Whatever runs after a step is at the end of an edge from it, in stacks of everything that nests."""
    taken = 0
    for seed in range(first, first + 20):
        plan = random_plan(seed)
        graph = Graph(plan.endpoint)
        follows = followers(graph, plan)
        failing = {(e.source, e.target) for e in graph.edges if e.kind is EdgeKind.ERROR}
        ways = Ways(graph)
        run = Run(Collector(), Context())
        tracing = sys.gettrace()
        sys.settrace(ways.trace)
        try:
            await asyncio.gather(plan.start(run, {}), return_exceptions=True)
            await run.finish("completed")
        finally:
            sys.settrace(tracing)
        for way in ways.ways.values():
            for index, (one, other) in enumerate(pairwise(way)):
                before = way[index - 1] if index else None
                assert (
                    other in follows[one]
                    or other in ancestors(one)  # to lines of a loop, a try, a choice between its steps
                    or other in follows_inside(one, before, follows)
                    or any((around, other) in failing for around in ancestors(one))
                ), (seed, one.path, other.path)
                taken += 1
    assert taken > 100


def follows_inside(one: Node, before: Node | None, follows: dict[Node, set[Node]]) -> set[Node]:
    """Return what may follow the steps in a step, where the run comes from them: through lines of the step itself."""
    inner = {node for block in one.blocks for node in block.walk()}
    if before in inner or one.nested(Nesting.BRANCH):
        return {after for node in inner for after in follows[node]} - inner
    return set()
