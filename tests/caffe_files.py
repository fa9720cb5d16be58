"""Files in the format of Caffe, written byte by byte: protobuf messages of layers with their blobs."""

import numpy as np


def varint(number):
    parts = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


def field(number, value):
    """One field of a protobuf message: a varint, or bytes with their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def blob(values, old=False):
    values = np.asarray(values, "<f4")
    if old:
        four = (1,) * (4 - values.ndim) + values.shape
        shape = b"".join(field(number, size) for number, size in enumerate(four, start=1))
    else:
        shape = field(7, field(1, b"".join(varint(size) for size in values.shape)))
    return shape + field(5, values.tobytes())


def layer(name, *blobs, old=False, **params):
    """A LayerParameter, or an (old) V1LayerParameter, as a field of NetParameter."""
    content = field(4 if old else 1, name.encode()) + (b"" if old else field(2, b"Whatever"))
    content += b"".join(field(6 if old else 7, blob(values, old)) for values in blobs)
    numbers = {"convolution": 10 if old else 106, "pooling": 19 if old else 121, "batch_norm": 139}
    return field(2 if old else 100, content + b"".join(field(numbers[key], value) for key, value in params.items()))
