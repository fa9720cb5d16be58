"""Activation checkpointing: some blocks run forward a second time instead of keeping their activations in memory.

Chen et al. 2016: only the input of a segment of blocks is kept; in the backward pass the segment runs forward again.
Segments of about sqrt(n) blocks need memory in proportion to sqrt(n), for a third more work.
"""

import gc
import math
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import cast

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from deepres.models.blocks import Block
from deepres.runtime.device import autocast
from deepres.runtime.errors import InputError

Pass = Callable[[nn.Module, Tensor], Tensor]  # of a network and images, to its outputs
SMALL = 64  # pixels a side up to which the last map of an image may be a single position
MOST_TRIALS = 6  # steps by which the segments for a GPU are found


@dataclass(frozen=True)
class Footprint:
    """Bytes of one block for one image: its input, and all other tensors that its backward pass needs."""

    input: int
    saved: int


@dataclass(frozen=True)
class Segments:
    """The first `blocks` blocks of a network run in segments of `length` blocks; `peak` is in bytes for one image."""

    blocks: int
    length: int
    peak: int


@dataclass(frozen=True)
class Kept:
    """A network in a number of `segments`; its training step keeps at most `peak` bytes, as `save_memory` tells."""

    segments: int
    peak: int


class SegmentedStage(nn.Sequential):
    """A stage whose first blocks are checkpointed in segments. Its parameters and their names do not change."""

    segments: Sequence[int] = ()  # the number of blocks of each; later blocks keep all their activations

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) through all children."""
        # What comes before the blocks (the max pool), then the segments, then the other blocks.
        children = list(self.children())
        while children and not isinstance(children[0], Block):
            input = children.pop(0)(input)
        for length in self.segments:
            segment = nn.Sequential(*children[:length])
            del children[:length]
            contexts = partial(_contexts, segment)
            input = checkpoint(segment, input, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)
        for child in children:
            input = child(input)
        return input


def scored(net: nn.Module, images: Tensor) -> Tensor:
    """The pass of a network that is nothing but called."""
    return net(images)


def save_memory(net: nn.Module, example: Tensor, budget: int, precision: str = "fp32", run: Pass = scored) -> Kept:
    """Cut `net` into segments so that what a training step on a batch like `example` keeps fits `budget` bytes.

    Counted are activations kept for the backward pass, gradients and velocity; not the working memory of operations,
    nor fragmentation. On a GPU working memory counts as well: steps on `example` are tried, and the peak is that of the
    allocator. As few blocks as possible run twice, those nearest the images first: their maps are the largest for the
    same work. The results of the network do not change; running statistics are updated once. `example` is (N, C, H, W);
    elsewhere than on a GPU one image of it goes through `net`, in `precision`. `run(net, images)` is the forward pass
    of a step, by default a call of `net`; its parts may take any number of maps for an image, as the regions of a
    detector. If no segments fit, those with the lowest peak are taken, and the peak that is returned is above the
    budget. Raises `InputError` for a network without blocks.
    """
    # Measure the blocks; gradients and velocity are as large as the parameters.
    stages, blocks = _stages(net)
    if not blocks:
        name = getattr(net, "name", "the network")
        raise InputError(f"{name} has no blocks that could run twice to save memory; leave the memory budget out")
    with autocast(precision, example.device.type):
        footprints, outside, fixed = measure(net, blocks, example[:1], run)
    parameters = sum(parameter.numel() * parameter.element_size() for parameter in net.parameters())
    fixed += 2 * parameters
    counts = [sum(isinstance(child, Block) for child in stage) for stage in stages]

    # Choose the segments within a number of bytes, and give each stage its own.
    def cut(room: int) -> Kept:
        chosen = choose(footprints, (room - fixed) // len(example) - outside, counts)
        cuts = _cuts(counts, chosen.blocks, chosen.length)
        for number, stage in enumerate(stages):
            first = sum(counts[:number])
            stage.__class__ = SegmentedStage
            own = [stop - start for start, stop in cuts if first <= start < first + counts[number]]
            cast(SegmentedStage, stage).segments = own
        return Kept(len(cuts), fixed + len(example) * (outside + chosen.peak))

    if example.device.type != "cuda":
        return cut(budget)
    return fitted(cut, lambda: parameters + _peak_on_gpu(net, example, precision, run), budget)


def fitted(cut: Callable[[int], Kept], measured: Callable[[], int], budget: int) -> Kept:
    """The segments of `cut(bytes)` for which a step keeps within `budget` bytes as `measured`, with that peak.

    What a step takes beyond the count of `cut` (working memory) is left free at the next trial. If no trial fits, the
    segments with the lowest peak are taken.
    """
    room, tried = budget, dict[Kept, int]()
    while len(tried) < MOST_TRIALS and (kept := cut(room)) not in tried:  # else no cut keeps less
        tried[kept] = measured()
        if tried[kept] <= budget:
            return Kept(kept.segments, tried[kept])
        room = budget - (tried[kept] - kept.peak)  # below what was counted for this cut
    best = min(tried, key=tried.__getitem__)
    return Kept(cut(best.peak).segments, tried[best])


def _peak_on_gpu(net: nn.Module, images: Tensor, precision: str, run: Pass) -> int:
    """The most bytes that the allocator held in a forward and backward pass of `images`, beyond those before it.

    That is activations, gradients and working memory. The first pass is not counted: algorithms are chosen in it.
    """
    device, peak = images.device, 0
    before = [(buffer, buffer.clone()) for buffer in net.buffers()]
    for _ in range(2):
        held = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        with autocast(precision, device.type):
            scores = run(net, images)
        scores.float().sum().backward()
        del scores
        peak = torch.cuda.max_memory_allocated(device) - held
        net.zero_grad(set_to_none=True)
        gc.collect()  # else graphs of the trial stay, with nodes that would keep a capture to the trial's stream
    # Leave the running statistics, and the memory of the device, as they were.
    for buffer, value in before:
        buffer.copy_(value)
    torch.cuda.empty_cache()
    return peak


def choose(footprints: Sequence[Footprint], budget: int, counts: Sequence[int]) -> Segments:
    """The segments with the fewest checkpointed blocks, counted from the first, within `budget` bytes an image.

    `counts` are the numbers of blocks of the stages; no segment spans two stages. If none fits, the lowest peak.
    """
    options = [_best(footprints, blocks, counts) for blocks in range(len(footprints) + 1)]
    return next((option for option in options if option.peak <= budget), min(options, key=lambda option: option.peak))


def measure(
    net: nn.Module, blocks: Sequence[Block], image: Tensor, run: Pass = scored
) -> tuple[list[Footprint], int, int]:
    """The footprint of each block for one image (1, C, H, W), and the bytes an image that are kept outside of blocks.

    Third, the bytes kept for a batch of any size: batch statistics, and the parameters converted by autocast.
    """
    # BN refuses a batch with one value a channel; of large images as few as possible, which must fit the memory, too.
    count = 2 if min(image.shape[2:]) <= SMALL else 1
    inputs, once = _kept(net, blocks, image.repeat(count, 1, 1, 1), run)
    _, twice = _kept(net, blocks, image.repeat(2 * count, 1, 1, 1), run)
    each = [(more - less) // count for less, more in zip(once, twice, strict=True)]
    footprints = [Footprint(one // count, kept) for one, kept in zip(inputs, each, strict=False)]
    return footprints, each[-1], sum(once) - count * sum(each)


def _kept(net: nn.Module, blocks: Sequence[Block], images: Tensor, run: Pass) -> tuple[list[int], list[int]]:
    """The bytes of each block's input, and those that autograd keeps for each block and (last) outside of blocks."""
    inputs, saved, now = [0] * len(blocks), [0] * (len(blocks) + 1), [len(blocks)]
    seen = {parameter.untyped_storage().data_ptr() for parameter in net.parameters()}
    keep: list[Tensor] = []  # holds each storage, so that no other one gets its address

    def enter(number: int, module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        now[0] = number
        inputs[number] = arguments[0].numel() * arguments[0].element_size()

    def leave(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        now[0] = len(blocks)

    def pack(tensor: Tensor) -> None:
        place = tensor.untyped_storage().data_ptr()
        if place not in seen:
            seen.add(place)
            keep.append(tensor.detach())  # with its graph it would hold itself, and stay
            saved[now[0]] += tensor.untyped_storage().nbytes()

    # Every tensor that autograd saves is counted once, for the block that runs at that time; no gradient asks for it.
    with ExitStack() as hooks, _statistics_untouched(net), saved_tensors_hooks(pack, lambda nothing: nothing):
        for number, block in enumerate(blocks):
            hooks.enter_context(block.register_forward_pre_hook(partial(enter, number)))
            hooks.enter_context(block.register_forward_hook(leave))
        run(net, images)
    return inputs, saved


def _best(footprints: Sequence[Footprint], blocks: int, counts: Sequence[int]) -> Segments:
    """The segment length with the lowest peak for the first `blocks` blocks."""
    saved = list(accumulate((each.saved for each in footprints), initial=0))
    if not blocks:
        return Segments(0, 0, saved[-1])
    longest = min(blocks, 3 * math.isqrt(blocks))  # the best is near the square root
    lengths = range(1, longest + 1)
    peak, length = min((_peak(footprints, saved, blocks, _cuts(counts, blocks, each)), each) for each in lengths)
    return Segments(blocks, length, peak)


def _cuts(counts: Sequence[int], blocks: int, length: int) -> list[tuple[int, int]]:
    """First block and end of each segment of the first `blocks` blocks, `length` blocks each, within each stage."""
    cuts: list[tuple[int, int]] = []
    first = 0
    for count in counts:
        stop = min(first + count, blocks)
        cuts += [(start, min(start + length, stop)) for start in range(first, stop, max(length, 1))]
        first += count
    return cuts


def _peak(footprints: Sequence[Footprint], saved: Sequence[int], blocks: int, cuts: Sequence[tuple[int, int]]) -> int:
    """The most bytes held at once: at the end of the forward pass, or while a segment runs again."""
    held, peak = 0, 0
    for start, stop in cuts:
        held += footprints[start].input
        peak = max(peak, held + saved[stop] - saved[start])
    return max(peak, held + saved[-1] - saved[blocks])


def _stages(net: nn.Module) -> tuple[list[nn.Sequential], list[Block]]:
    """The stages of a network and all their blocks, in the order in which an image passes them."""
    stages = [
        module
        for module in net.modules()  # those of a detector are its backbone's
        if isinstance(module, nn.Sequential) and any(isinstance(inner, Block) for inner in module)
    ]
    return stages, [inner for stage in stages for inner in stage if isinstance(inner, Block)]


def _contexts(segment: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """The contexts of the first and of the second forward pass of a segment."""
    return nullcontext(), _statistics_untouched(segment)


@contextmanager
def _statistics_untouched(module: nn.Module) -> Generator[None]:
    """Batch normalization uses batch statistics as usual, but does not update its running statistics inside the `with`.

    The momentum is 0: checkpointing needs the same tensors in both passes, and they include the running statistics.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    before = [(layer, layer.momentum, layer.num_batches_tracked) for layer in layers]
    for layer in layers:
        layer.momentum, layer.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for layer, momentum, count in before:
            layer.momentum, layer.num_batches_tracked = momentum, count
