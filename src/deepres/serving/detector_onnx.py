"""A detector as an ONNX model, with proposals, pooling of regions and suppression inside."""

from typing import Any

import torch

from deepres.serving.detector_graph import DetectorGraph, program_of
from deepres.serving.onnx import IMAGES, writing

OPSET = 18  # that of the operations below; from 20 on, some are called otherwise, which older runtimes do not know


def exported_detector(graph: DetectorGraph) -> bytes:
    """The graph, which must suppress by `suppress_by_group`, as a serialized ONNX model of float32.

    Its input is named `images`; its outputs have the names that the graph gives them. Regions are pooled by MaxRoiPool
    or RoiAlign, and NonMaxSuppression works class by class. Raises `InputError` as `onnx.exported`.
    """
    program = program_of(graph)
    with writing():
        made = torch.onnx.export(
            program,
            input_names=[IMAGES],
            output_names=list(graph.outputs),
            dynamic_shapes=({1: "height", 2: "width"},),
            custom_translation_table=_translations(),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert made is not None
    model = made.model_proto
    for output in model.graph.output:
        what = "candidates" if output.name.startswith("candidate") else "detections"
        output.type.tensor_type.shape.dim[0].dim_param = what
    return model.SerializeToString()


def _translations() -> dict[Any, Any]:
    """The operations of ONNX for those of torchvision and ours. Each takes a batch of one image."""
    from onnxscript import opset18

    op: Any = opset18

    def numbers(*values: int) -> Any:
        return op.Constant(value_ints=list(values))

    def suppress(boxes: Any, scores: Any, overlap: float, least: float, most: int) -> Any:
        """`least` and `most` as ONNX has them; its answer has group, class and place."""
        limits = numbers(most), op.Constant(value_floats=[overlap]), op.Constant(value_floats=[least])
        found = op.NonMaxSuppression(boxes, op.Unsqueeze(scores, numbers(1)), *limits)
        return op.Gather(found, numbers(0, 2), axis=1)

    def pool(maps: Any, boxes: Any, spatial_scale: float, pooled_height: int, pooled_width: int) -> Any:
        """The second result, where the maxima were, is used in training alone."""
        shape = [pooled_height, pooled_width]
        return op.MaxRoiPool(maps, boxes, pooled_shape=shape, spatial_scale=spatial_scale), numbers(0)

    def align(
        maps: Any,
        boxes: Any,
        spatial_scale: float,
        pooled_height: int,
        pooled_width: int,
        sampling_ratio: int,
        aligned: bool,
    ) -> Any:
        """As many samples in a bin as it is wide, which is -1 in torchvision and 0 in ONNX."""
        images = op.Cast(op.Squeeze(op.Slice(boxes, numbers(0), numbers(1), numbers(1)), numbers(1)), to=7)
        edges = op.Slice(boxes, numbers(1), numbers(5), numbers(1))
        return op.RoiAlign(
            maps,
            edges,
            images,
            coordinate_transformation_mode="half_pixel" if aligned else "output_half_pixel",
            output_height=pooled_height,
            output_width=pooled_width,
            sampling_ratio=max(sampling_ratio, 0),
            spatial_scale=spatial_scale,
        )

    def sample(maps: Any, grid: Any, interpolation_mode: int, padding_mode: int, align_corners: bool) -> Any:
        """Bilinear samples, those beside the map from its border: all that warping asks for."""
        return op.GridSample(maps, grid, align_corners=int(align_corners), mode="bilinear", padding_mode="border")

    return {
        torch.ops.deepres.suppress_by_group.default: suppress,
        torch.ops.aten.grid_sampler_2d.default: sample,
        torch.ops.aten.grid_sampler.default: sample,
        torch.ops.torchvision.roi_pool.default: pool,
        torch.ops.torchvision.roi_align.default: align,
    }
