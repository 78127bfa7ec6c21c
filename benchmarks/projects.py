"""Projects that are made to be measured: many endpoints, many steps."""

from __future__ import annotations

from pathlib import Path

# An endpoint as authors write them: inputs of several types, variables, a loop, a condition, an end.
_ENDPOINT = """\
method: POST
path: /api/orders-{number}/{{customer}}
summary: What customer's orders come to, number {number}
tags: [orders]
responseType: streaming
inputParameters:
  customer: {{type: text, required: true, minLength: 1, maxLength: 100}}
  quantities: {{type: list, items: {{type: integer}}, default: [1, 2, 3], description: Of each article}}
  discount: {{type: decimal, default: 0, minimum: 0, maximum: 1}}
  streamOptions:
    type: object
    aliases: [options]
    properties:
      delay: {{type: integer, default: 0, minimum: 0, maximum: 5000, description: Milliseconds}}
      includeMetadata: {{type: boolean, default: false}}
functionStack:
  - name: Begin at nothing
    set: {{total: 0, articles: << input.quantities | length >>}}
  - name: Each article
    forEach:
      in: << input.quantities >>
      as: quantity
      do:
        - set: {{price: << quantity * {number} * (1 - input.discount) >>}}
        - if:
            condition: << price > 100 >>
            then:
              - set: {{total: << total + price * 0.9 >>}}
            else:
              - set: {{total: << total + price >>}}
        - stream:
            content: "Article << loop.index >> of << articles >>: << price >>"
            metadata: '<< {{"index": stream.count}} if input.streamOptions.includeMetadata else null >>'
            delay: << input.streamOptions.delay >>
  - done: {{content: "[DONE]", metadata: {{completed: true, total: << total >>, processingTime: << run.elapsedMs >>}}}}
"""

_SMALL = """\
method: GET
path: /small-{number}
responseType: json
functionStack:
  - set: {{answer: {number}}}
response: << answer >>
"""


def write_endpoints(folder: Path, count: int) -> None:
    """Write endpoints as authors write them, a file each, fifty to a folder."""
    for number in range(count):
        place = folder / f"part-{number // 50}"
        place.mkdir(exist_ok=True)
        (place / f"orders-{number}.yaml").write_text(_ENDPOINT.format(number=number))


def write_small_endpoints(folder: Path, count: int) -> None:
    """Write the smallest endpoints, a file each."""
    for number in range(count):
        (folder / f"small-{number}.yaml").write_text(_SMALL.format(number=number))


def write_steps(folder: Path, count: int) -> None:
    """Write one endpoint with this many steps after the first."""
    steps = "".join("  - set: {total: << total + input.by >>}\n" for _ in range(count))
    (folder / "steps.yaml").write_text(
        "method: GET\npath: /steps\nresponseType: json\n"
        "inputParameters:\n  by: {type: integer, default: 1}\n"
        f"functionStack:\n  - set: {{total: 0}}\n{steps}response: << total >>\n"
    )
