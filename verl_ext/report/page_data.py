# SPDX-License-Identifier: Apache-2.0
"""What the page knows: blocks of JSON that its scripts read, of runs, responses and pictures."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from markupsafe import Markup

from verl_ext.report.colours import CATEGORICAL, DIVERGING, REST, SEQUENTIAL
from verl_ext.report.images import data_uri, thumbnail
from verl_ext.report.metrics_file import Step, is_number, measured, series
from verl_ext.report.panels import Panel, panels, phase_seconds, points
from verl_ext.report.quantities import quantities
from verl_ext.report.record_files import Response
from verl_ext.report.runs import Run

Watch = Callable[[Sequence[Response]], Iterable[Response]]
_EXCERPT = 120
_MARKUP = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


@dataclass(frozen=True)
class Block:
    """One block: the id of its element, and its JSON in ASCII without any markup character."""

    id: str
    json: Markup


def blocks(runs: Sequence[Run], watch: Watch = iter) -> Iterator[Block]:
    """All blocks: `report`, `metrics-<run>`, `record-<index>` of every response, `image-<index>` of every picture.

    Args:
        runs: in the order of the report.
        watch: passes the responses on while they are packed, for a progress bar.

    Raises:
        DataError: a picture of a response cannot be decoded.
    """
    owned = [(number, response) for number, run in enumerate(runs) for response in run.responses]
    yield _block("report", _report(runs, owned))
    yield from (_block(f"metrics-{number}", _metrics(run.steps)) for number, run in enumerate(runs))
    responses = [response for _, response in owned]
    yield from _picture_blocks(responses)
    pictures = _pictures(responses)
    for index, response in enumerate(watch(responses)):
        yield _block(f"record-{index}", _record(response, pictures))


def _block(name: str, value: Any) -> Block:
    # ASCII alone: what Unicode cannot encode, as half of a surrogate pair, stays an escape.
    text = json.dumps(value, allow_nan=False, separators=(",", ":")).translate(_MARKUP)
    return Block(name, Markup(text))


def _report(runs: Sequence[Run], owned: Sequence[tuple[int, Response]]) -> dict[str, Any]:
    responses = [response for _, response in owned]
    plots = panels([measured(run.steps) for run in runs])
    pictures = _pictures(responses)
    texts = {text: index for index, text in enumerate(dict.fromkeys(response.prompt for response in responses))}
    return {
        "runs": [
            {"label": run.label, "notes": run.notes, "overview": _overview(run, index, plots)}
            for index, run in enumerate(runs)
        ],
        "panels": [asdict(panel) for panel in plots],
        "costs": [_cost(run.steps) for run in runs],
        "quantities": [asdict(quantity) for quantity in quantities(responses)],
        "prompts": [{"text": text, "excerpt": _excerpt(text)} for text in texts],
        "records": [_index_entry(run, response, texts[response.prompt], pictures) for run, response in owned],
        "colours": {"categorical": CATEGORICAL, "rest": REST, "sequential": SEQUENTIAL, "diverging": DIVERGING},
    }


def _overview(run: Run, index: int, plots: Sequence[Panel]) -> list[dict[str, Any]]:
    """First and last value of each line of each plot, for the table on top."""
    lines = [(panel, line) for panel in plots for line in panel.lines[index]]
    found = ((panel, line, points(run.steps, line)) for panel, line in lines)
    return [
        {"panel": panel.key, "line": line.name, "first": values[0][1], "last": values[-1][1]}
        for panel, line, values in found
        if values
    ]


def _cost(steps: Sequence[Step]) -> dict[str, Any]:
    timed, seconds = phase_seconds(steps)
    return {"steps": timed, "seconds": {phase: _rounded(values) for phase, values in seconds.items()}}


def _metrics(steps: Sequence[Step]) -> dict[str, Any]:
    names = sorted({name for _, data in steps for name in data})
    columns = {name: series(steps, name) for name in names}
    return {
        name: {"steps": [step for step, _ in values], "values": _rounded(value for _, value in values)}
        for name, values in columns.items()
        if values
    }


def _index_entry(run: int, response: Response, text: int, pictures: dict[bytes, int]) -> dict[str, Any]:
    return {
        "run": run,
        "step": response.step,
        "prompt": response.prompt_id,
        "text": text,
        "picture": pictures[response.images[0]] if response.images else None,
        "reward": _number(response.reward),
        "accuracy": _number(response.accuracy),
        "tokens": len(response.tokens),
    }


def _excerpt(prompt: str) -> str:
    """What the user asks, as far as the words of a chat template show it, on one short line."""
    question = re.sub(r"\s*assistant\s*$", "", prompt).rpartition("user\n")[2]
    line = " ".join(question.split())
    return line if len(line) <= _EXCERPT else line[: _EXCERPT - 1] + "…"


def _pictures(responses: Iterable[Response]) -> dict[bytes, int]:
    """A number for each different picture: the same one, of other responses or at other steps, is held once."""
    found = dict.fromkeys(content for response in responses for content in response.images)
    return {content: number for number, content in enumerate(found)}


def _picture_blocks(responses: Sequence[Response]) -> Iterator[Block]:
    written: set[bytes] = set()
    for response in responses:
        for number, content in enumerate(response.images):
            if content not in written:
                where = f"step {response.step}, uid {response.uid}, image {number}"
                yield _block(f"image-{len(written)}", data_uri(thumbnail(content, where)))
                written.add(content)


def _record(response: Response, pictures: dict[bytes, int]) -> dict[str, Any]:
    return {
        "truth": response.ground_truth,
        "images": [pictures[content] for content in response.images],
        "tokens": response.tokens,
        "values": {name: _rounded(values) for name, values in response.values.items()},
    }


def _rounded(values: Iterable[float]) -> list[float | None]:
    return [_number(value) for value in values]


def _number(value: float | None) -> float | None:
    """Four significant digits, which is more than can be seen; None for what JSON has no number for."""
    return float(f"{value:.4g}") if is_number(value) else None
