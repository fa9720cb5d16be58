"""The process of one contestant: it sets up, then does its job once for every line that it reads from the input.

Each contestant has its own process, since settings of memory and threads hold for a process. Answers are JSON lines.
"""

import json
import os
import sys
import time
import warnings
from typing import Any

from deepres.bench.job import Job
from deepres.runtime.errors import InputError


def main(name: str, text: str) -> None:
    """Do the job of `text` as the contestant `name`, once per line of the input, until the input ends."""
    # Only answers go to the output: what a library prints goes to the error output.
    answers = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")

    def answer(value: dict[str, Any]) -> None:
        answers.write(json.dumps(value) + "\n")

    from deepres.bench.contestants import ready

    # Set up, then work once per line.
    try:
        contestant = ready(name, Job(**json.loads(text)))
    except InputError as error:
        answer({"error": str(error)})
        return
    answer({"setting": contestant.setting, "facts": contestant.facts})
    for _ in sys.stdin:
        start = time.perf_counter()
        images = contestant.turn()
        seconds = time.perf_counter() - start
        answer({"seconds": seconds, "images": images} | contestant.figures())


if __name__ == "__main__":
    main(*sys.argv[1:])
