"""What a detector finds under a protocol, worked out region by region and box by box in plain loops."""

import math

import torch

from deepres.models.detection.images import fitted, padded
from deepres.models.detection.outputs import Detections


@torch.no_grad()
def found_by_loops(nets, protocol, image):
    """The detections in an image uint8 (C, H, W)."""
    first, frame = nets[0], None
    wanted = first.header["classes"]
    maps, regions = [], []
    for net in nets:
        # The image as this network sees it, for proposals.
        side, longest = protocol.side or net.plan.side, net.plan.longest
        longest = round(longest * side / net.plan.side)
        seen = fitted(image, side, longest)
        size = tuple(seen.shape[1:])
        frame = frame or size
        shared = net.shared(padded([seen], net.mean))
        for box in net.proposals(*net.anchored(shared), [size], net.selection)[0].tolist():
            box = _stretched(box, size, frame)
            if box not in regions:
                regions.append(box)
        # And for regions, at each size.
        own = []
        for scale in sorted(protocol.scales) or [side]:
            view = fitted(image, scale, round(longest * scale / side))
            own.append((net.shared(padded([view], net.mean)), tuple(view.shape[1:])))
        maps.append(own)
    # Predictions of the regions, and of what they become.
    found, current = [], regions
    for _ in range(1 + protocol.refine):
        predicted = [_predicted(nets, maps, box, frame, wanted) for box in current]
        found += predicted
        current = [boxes[max(range(len(boxes)), key=lambda k, s=scores: s[k])] for scores, boxes in predicted]
    return _best(found, frame, image.shape[1:], protocol, first.plan)


def _predicted(nets, maps, box, frame, wanted):
    """The scores of the classes and the box of each, means over the networks."""
    scores, deltas = [0.0] * len(wanted), [[0.0] * 4 for _ in wanted]
    for net, own in zip(nets, maps, strict=True):
        features = None
        for place in _two_scales(box, frame, [size for _, size in own]):
            shared, size = own[place]
            region = torch.tensor([_stretched(box, frame, size)])
            one = net.features_of(shared, [region], [size])[0]
            features = one if features is None else torch.stack([features, one]).amax(0)
        probabilities = net.score(features[None])[0].softmax(0).tolist()
        moves = net.box(features[None])[0].tolist()
        for place, name in enumerate(wanted):
            column = net.header["classes"].index(name)
            scores[place] += probabilities[1 + column] / len(nets)
            for side in range(4):
                deltas[place][side] += moves[4 * column + side] / len(nets)
    return scores, [_moved(box, own, frame) for own in deltas]


def _two_scales(box, frame, sizes):
    areas = []
    for size in sizes:
        left, top, right, bottom = _stretched(box, frame, size)
        areas.append(abs((right - left) * (bottom - top) - 224 * 224))
    nearest = areas.index(min(areas))
    beside = [place for place in (nearest - 1, nearest + 1) if 0 <= place < len(areas)]
    return [nearest, *sorted(beside, key=lambda place: areas[place])[:1]]


def _moved(box, delta, frame):
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    x = (left + right) / 2 + 0.1 * delta[0] * width
    y = (top + bottom) / 2 + 0.1 * delta[1] * height
    width *= min(math.exp(0.2 * delta[2]), 62.5)
    height *= min(math.exp(0.2 * delta[3]), 62.5)
    corners = x - width / 2, y - height / 2, x + width / 2, y + height / 2
    return [min(max(value, 0), frame[1 - place % 2]) for place, value in enumerate(corners)]


def _stretched(box, before, after):
    return [value * after[1 - place % 2] / before[1 - place % 2] for place, value in enumerate(box)]


def _best(found, frame, size, protocol, plan):
    """Suppression class by class, the best detections, and voting on their boxes."""
    every = [
        (scores[label], label, _stretched(boxes[label], frame, size))
        for scores, boxes in found
        for label in range(len(scores))
        if scores[label] > plan.threshold
    ]
    kept = []
    for candidate in sorted(every, key=lambda own: -own[0]):
        if all(candidate[1] != own[1] or overlap(candidate[2], own[2]) <= plan.nms for own in kept):
            kept.append(candidate)
    boxes = []
    for _, label, box in kept[: plan.most]:
        near = [own for own in every if own[1] == label and protocol.voting and overlap(own[2], box) >= protocol.voting]
        total = sum(score for score, _, _ in near)
        boxes.append([sum(s * b[side] for s, _, b in near) / total for side in range(4)] if near else box)
    scores, labels, _ = zip(*kept[: plan.most], strict=True)
    return Detections(torch.tensor(boxes), torch.tensor(scores), torch.tensor(labels))


def overlap(box, other):
    """The IoU of two boxes."""
    width = max(0, min(box[2], other[2]) - max(box[0], other[0]))
    height = max(0, min(box[3], other[3]) - max(box[1], other[1]))
    areas = [(own[2] - own[0]) * (own[3] - own[1]) for own in (box, other)]
    union = sum(areas) - width * height
    return width * height / union if union else 0.0
