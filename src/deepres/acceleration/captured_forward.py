"""A network's forward pass as CUDA graphs: one launch a batch, where every layer would be one or several.

At 32 pixels, and for single pictures at 224, a GPU computes a layer in less time than the processor takes to launch it.
"""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, nullcontext
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn

Outputs = Tensor | Mapping[str, Tensor]
MOST = 24  # graphs of a network; their maps share one pool of memory


def padded(count: int, usual: int = 0) -> int:
    """The number of images that a batch of `count` is padded to: 2^k or 3 * 2^k, or `usual` where that is less."""
    power = 1 << max(count - 1, 0).bit_length()
    size = power * 3 // 4 if power >= 4 and count <= power * 3 // 4 else power
    return min(size, usual) if count <= usual else size


class CapturedForward(nn.Module):
    """`net` in evaluation mode, whose forward pass is captured for the shapes that come again, and then replayed.

    It takes images (N, C, H, W) of any N, H and W, on the device of the network, and gives what `net` gives: a tensor,
    or several by name, N first. A batch is padded to the next size of `padded`; the first batch has the usual one. A
    shape that comes for the first time runs plainly, and so do shapes beyond the first `most` that come again: the
    dense test has as many as its pictures have. With `benchmark` a shape is captured as soon as it comes, and cuDNN
    times its algorithms for it.

    The images are converted to `dtype`. A graph reads the parameters where they lie, so they may change in place
    between two calls. On a processor the same steps run without a graph. Several threads may call it.
    """

    def __init__(self, net: nn.Module, dtype: torch.dtype = torch.float32, most: int = MOST, benchmark: bool = False):
        super().__init__()
        self.net, self.dtype, self.most, self.benchmark = net.eval(), dtype, most, benchmark
        self.usual = 0
        self.graphs: dict[tuple[int, ...], _Graph] = {}
        self._seen: set[tuple[int, ...]] = set()
        self._lock = Lock()
        self.eval()

    def forward(self, images: Tensor) -> Outputs:
        """The outputs of the network for `images`; nothing waits for the device."""
        count = len(images)
        self.usual = self.usual or count
        shape = (padded(count, self.usual), *images.shape[1:])
        # Tensors made in inference mode could not be written to outside of it.
        with self._lock, torch.inference_mode(False), torch.no_grad():
            graph = self.graphs.get(shape) or self._captured(shape, images.device)
            if graph is None:
                return self.net(images.to(self.dtype, memory_format=torch.channels_last))
            # Rows behind the last image keep what they held: no image's scores depend on another's.
            graph.images[:count].copy_(images, non_blocking=True)
            graph.replay()
            return _each(lambda value: value[:count].clone(), graph.outputs)

    def _captured(self, shape: tuple[int, ...], device: torch.device) -> "_Graph | None":
        """The graph of a shape that comes again, while there is room."""
        again = shape in self._seen or self.benchmark
        self._seen.add(shape)
        if not again or len(self.graphs) >= self.most:
            return None
        images = torch.zeros(shape, dtype=self.dtype, device=device).contiguous(memory_format=torch.channels_last)
        pool = next((graph.pool for graph in self.graphs.values()), None)
        with _timed_algorithms() if self.benchmark else nullcontext():
            self.graphs[shape] = graph = _Graph(self.net, images, pool)
        return graph


class _Graph:
    """The forward pass of a network from `images` to `outputs`, tensors at fixed places in memory.

    Graphs may share a `pool`: they run one after another, and the outputs of all are kept apart.
    """

    def __init__(self, net: nn.Module, images: Tensor, pool: Any):
        self.images, self.pool = images, pool
        if not images.is_cuda:  # the same steps on a processor, for tests
            self.outputs = net(images)
            self.replay = lambda: _copy(net(images), self.outputs)
            return
        # On a stream of its own, run once so that libraries allocate and choose their kernels, then capture.
        stream = torch.cuda.Stream(images.device)
        stream.wait_stream(torch.cuda.current_stream(images.device))
        with torch.cuda.stream(stream):
            net(images)
        torch.cuda.current_stream(images.device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # Other threads (of the page's server, of NCCL) may use the device meanwhile.
        with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            self.outputs = net(images)
        self.pool, self.replay = graph.pool(), graph.replay


@contextmanager
def _timed_algorithms() -> Generator[None]:
    """cuDNN times its algorithms for each new shape inside the `with`."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def _each(change: Callable[[Tensor], Tensor], outputs: Outputs) -> Outputs:
    if isinstance(outputs, Tensor):
        return change(outputs)
    return {name: change(value) for name, value in outputs.items()}


def _copy(found: Outputs, into: Outputs) -> None:
    if isinstance(found, Tensor) or isinstance(into, Tensor):
        assert isinstance(found, Tensor) and isinstance(into, Tensor)
        into.copy_(found)
        return
    for name, value in found.items():
        into[name].copy_(value)
