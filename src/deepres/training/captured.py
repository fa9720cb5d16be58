"""A training step captured as a CUDA graph: the GPU runs it again and again, without a launch from Python."""

import gc
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

Raw = tuple[Tensor, ...]
# Steps before a step is captured: cuDNN and the compiler choose their algorithms, and `DistributedDataParallel` its
# buckets, which takes 11.
WARM_UPS = {False: 3, True: 11}


class StaticStep:
    """A step on tensors that stay where they are: `step(raw)` with what is given copied into them first.

    `step` reads and writes tensors of the device alone, `state` is all that it changes, and `raw` gives the shapes of
    its input. Where `state` is on a GPU, the step is captured by the first call and replayed from then on; elsewhere
    the same code runs step by step. Capturing takes some steps to warm up, after which `state` and the random numbers
    are as before.
    """

    def __init__(self, step: Callable[[Raw], None], state: Sequence[Tensor], raw: Raw, exchanges: bool = False):
        self.step, self.state = step, state
        self.raw = tuple(own.clone(memory_format=torch.preserve_format) for own in raw)
        self.graph: torch.cuda.CUDAGraph | None = None
        if state[0].device.type == "cuda":
            self.graph = self._captured(WARM_UPS[exchanges])

    def __call__(self, raw: Raw) -> None:
        """One step on `raw`, without waiting for the device."""
        for own, new in zip(self.raw, raw, strict=True):
            own.copy_(new, non_blocking=True)
        if self.graph is None:
            self.step(self.raw)
        else:
            self.graph.replay()

    def _captured(self, warm_ups: int) -> torch.cuda.CUDAGraph:
        # Autograd must not have seen the parameters on another stream: no graph of theirs may be alive.
        gc.collect()
        before, random = [own.detach().clone() for own in self.state], torch.cuda.get_rng_state()
        # Warm up on the stream that captures.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(stream):
                for _ in range(warm_ups):
                    self.step(self.raw)
            torch.cuda.current_stream().wait_stream(stream)
            # Capture: nothing runs yet. Other threads may go on using the GPU, but nothing may be freed.
            graph = torch.cuda.CUDAGraph()
            with _no_collection(), torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                self.step(self.raw)
        finally:
            with torch.no_grad():
                for own, old in zip(self.state, before, strict=True):
                    own.copy_(old)
            torch.cuda.set_rng_state(random)
        return graph


@contextmanager
def _no_collection() -> Generator[None]:
    """Collect garbage before, and none within the context: a tensor that is freed would end a capture."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
