"""`trimode generate --input x.jsonl --output y.jsonl`: many prompts in shared forwards, one row each, resumable.

A row is written when its answer is done, so the order is that of finishing; `index` is the line it answers (from 0).
A run that was cut off goes on where it stopped: rows already there are kept, a torn last row is dropped.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from trimode.api import LLM, Options, completion
from trimode.engine.engine import Engine
from trimode.engine.request import Request
from trimode.errors import InvalidInput

IN_FLIGHT = 16
FIELDS = {"prompt", "messages", "id", *Options.__annotations__}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the input that is not blank."""

    index: int
    digest: str
    data: bytes


@dataclass(slots=True)
class Report:
    """What a run has done."""

    written: int = 0
    failed: int = 0
    kept: int = 0


def run(llm: LLM, source: Path, target: Path, options: dict[str, Any]) -> Report:
    """Answer each line of `source` that `target` does not hold yet; `options` are defaults a line may override."""
    if not source.is_file():
        raise InvalidInput(f"--input {source}: no such file")
    report = Report()
    answered = resume(target)
    engine = llm.engine(max_running=IN_FLIGHT)
    todo = pending(source, target, answered, report)
    flying: dict[int, tuple[Request, dict[str, Any]]] = {}
    with target.open("ab") as out:
        exhausted = False
        while flying or not exhausted:
            while len(flying) < IN_FLIGHT and not exhausted:
                line = next(todo, None)
                exhausted = line is None
                if line is not None:
                    launch(llm, engine, line, options, flying, out, report)
            for event in engine.step():
                if event.finish:
                    request, head = flying.pop(event.request)
                    write(out, head | completion(request).to_dict())
                    report.written += 1
    return report


def launch(
    llm: LLM, engine: Engine, line: Line, options: dict[str, Any],
    flying: dict[int, tuple[Request, dict[str, Any]]], out: BinaryIO, report: Report,
) -> None:  # fmt: skip
    """Submit one line, or write its error row at once."""
    head: dict[str, Any] = {"index": line.index, "line_sha256": line.digest}
    try:
        row = parse(line.data)
        head |= {"id": row.pop("id")} if "id" in row else {}
        prompt = llm.chat_prompt(row.pop("messages")) if "messages" in row else row.pop("prompt")
        request = llm.submit(engine, prompt, **(options | row))
        flying[request.id] = (request, head)
    except InvalidInput as error:
        write(out, head | {"error": str(error)})
        report.failed += 1


def parse(data: bytes) -> dict[str, Any]:
    """A row of the input, or a sentence about what is wrong with it."""
    try:
        row = json.loads(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise InvalidInput("the line is not UTF-8 text") from None
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"the line is not JSON ({error})") from None
    if not isinstance(row, dict) or ("prompt" in row) == ("messages" in row):
        raise InvalidInput('the line must be a JSON object with either "prompt" or "messages"')
    unknown = sorted(set(row) - FIELDS)
    if unknown:
        raise InvalidInput(f"unknown field {unknown[0]!r}, allowed are {', '.join(sorted(FIELDS))}")
    return row


def pending(source: Path, target: Path, answered: dict[int, str], report: Report) -> Iterator[Line]:
    """Lines not answered yet. A row that answers another line than the one at its index stops the run."""
    with source.open("rb") as file:
        for index, raw in enumerate(file):
            data = raw.strip()
            if not data:
                continue
            digest = hashlib.sha256(data).hexdigest()[:16]
            if index not in answered:
                yield Line(index=index, digest=digest, data=data)
            elif answered[index] == digest:
                report.kept += 1
            else:
                raise InvalidInput(f"{target} answers another input: its row {index} belongs to a different line")


def resume(target: Path) -> dict[int, str]:
    """Line digests by index of the rows in `target`; a torn last row is cut off. A foreign file is refused."""
    answered: dict[int, str] = {}
    if not target.is_file():  # not there yet, or a device or pipe, which holds nothing to go on from
        return answered
    good = 0
    with target.open("rb") as file:
        for raw in file:
            if not raw.endswith(b"\n"):
                break
            try:
                row = json.loads(raw)
                answered[row["index"]] = row["line_sha256"]
            except (ValueError, KeyError, TypeError):
                raise InvalidInput(f"--output {target} exists and was not written by an earlier run") from None
            good += len(raw)
    with target.open("r+b") as file:
        file.truncate(good)
    return answered


def write(out: BinaryIO, row: dict[str, Any]) -> None:
    """One row, on disk before the next is computed."""
    out.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
    out.flush()
