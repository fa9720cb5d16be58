"""The process of one contestant: it sets up, then does its job once for every line that it reads from the input.

Each contestant has its own process, since settings of memory and threads hold for a process. Answers are JSON lines.
"""

import json
import os
import sys
import warnings

from deepres.bench.job import Contestant, Job
from deepres.bench.turns import Turns
from deepres.runtime.errors import InputError


def main(name: str, text: str) -> None:
    """Do the job of `text` as the contestant `name`, once per line of the input, until the input ends."""
    # Only answers go to the output: what a library prints goes to the error output.
    answers = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    turns, job = Turns(sys.stdin, answers), Job(**json.loads(text))

    from deepres.bench.contestants import ready

    # Set up, then work once per line.
    try:
        contestant = ready(name, job)
        if contestant.work is not None:
            contestant.work(turns)
            return
    except InputError as error:
        turns.answer({"error": str(error)})
        return
    _work(contestant, job, turns)


def _work(contestant: Contestant, job: Job, turns: Turns) -> None:
    """Answer all turns. Between them a GPU is left to the others: nothing is under way, and no freed memory is kept."""
    from deepres.bench.inputs import release, synchronize

    def turn() -> int:
        images = contestant.turn()
        synchronize(job.device)
        return images

    def figures() -> dict[str, float]:
        release(job.device)
        return contestant.figures()

    release(job.device)
    turns.answer({"setting": contestant.setting, "facts": contestant.facts})
    turns.work(turn, figures)


if __name__ == "__main__":
    main(*sys.argv[1:])
