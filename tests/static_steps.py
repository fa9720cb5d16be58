"""The command line with the steps that a GPU captures, but on the processor: `python -m static_steps train ...`."""

import sys

from deepres.__main__ import main
from deepres.training.trainer import Trainer

resume = Trainer.resume


def resume_and_capture(self, monitor):
    resume(self, monitor)
    self.capture(monitor)
    assert self.static


if __name__ == "__main__":
    Trainer.resume = resume_and_capture
    sys.exit(main())
