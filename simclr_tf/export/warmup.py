"""Requests that TF Serving runs before a model takes traffic, so that no client waits."""

from __future__ import annotations

import os
from collections.abc import Mapping

import tensorflow as tf
from absl import logging

from simclr_tf.export.metadata import EXTRA
from simclr_tf.export.module import input_of

_FILE = "tf_serving_warmup_requests"


def write_warmup(
    folder: str, signatures: Mapping[str, tf.types.experimental.ConcreteFunction], image_size: int
) -> None:
    """Writes a request of one grey image per signature, if tensorflow-serving-api is installed."""
    try:
        from tensorflow_serving.apis import predict_pb2, prediction_log_pb2
    except ImportError:
        logging.info("no %s: pip install tensorflow-serving-api, and export again", _FILE)
        return
    inputs = {"images": _grey(image_size), "image_bytes": _grey_jpeg(image_size)}
    with tf.io.TFRecordWriter(os.path.join(folder, EXTRA, _FILE)) as writer:
        for name, function in signatures.items():
            request = predict_pb2.PredictRequest()
            request.model_spec.name = "simclr"  # TF Serving reads only the signature's name
            request.model_spec.signature_name = name
            key = input_of(function).name
            request.inputs[key].CopyFrom(inputs[key])
            log = prediction_log_pb2.PredictionLog(
                predict_log=prediction_log_pb2.PredictLog(request=request)
            )
            writer.write(log.SerializeToString())


def _grey(size: int):
    """Returns a grey image; its TensorProto gives one value for all elements."""
    proto = tf.make_tensor_proto(0.5, tf.float32, shape=[1])
    proto.tensor_shape.CopyFrom(tf.TensorShape([1, size, size, 3]).as_proto())
    return proto


def _grey_jpeg(size: int):
    grey = tf.fill([size, size, 3], tf.constant(128, tf.uint8))
    return tf.make_tensor_proto([tf.io.encode_jpeg(grey).numpy()])
