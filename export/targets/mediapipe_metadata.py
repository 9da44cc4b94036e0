"""What MediaPipe's ImageClassifier reads in a file: TFLite metadata, labels, and probabilities as output.

Source: mediapipe/tasks/metadata/metadata_schema.fbs, and the checks of mediapipe/tasks/cc/components.
"""

import io
import zipfile

import numpy as np

from ..tflite.flatbuffer import read, with_checksum, write
from ..tflite.operators import operator_code

IDENTIFIER = b"M001"
METADATA_NAME = "TFLITE_METADATA"
LABELS_FILE = "labels.txt"
PARSER_VERSION = "1.0.0"  # the oldest that knows all the fields below


def with_activation(content, kind):
    """Lets a file give probabilities instead of logits.

    Args:
        content: bytes of a file with one output.
        kind: `"SOFTMAX"` or `"LOGISTIC"`, the operator that is added.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = read(content)
    graph = model.subgraphs[0]
    logits = int(graph.outputs[0])
    graph.tensors.append(
        schema.TensorT(shape=graph.tensors[logits].shape, type=schema.TensorType.FLOAT32, name=b"probabilities")
    )
    probabilities = len(graph.tensors) - 1
    operator = schema.OperatorT(opcodeIndex=operator_code(model, kind), inputs=[logits], outputs=[probabilities])
    if kind == "SOFTMAX":
        operator.builtinOptionsType = schema.BuiltinOptions.SoftmaxOptions
        operator.builtinOptions = schema.SoftmaxOptionsT(beta=1.0)
    graph.operators.append(operator)
    graph.outputs = [probabilities]
    (output,) = model.signatureDefs[0].outputs
    output.name, output.tensorIndex = b"probabilities", probabilities
    return write(model)


def with_tflite_metadata(content, labels, description, version):
    """Adds TFLite metadata to a file that takes raw pixels and gives probabilities.

    Args:
        content: bytes of the file.
        labels: class names in index order.
        description: of the model, for people.
        version: of the model.

    Returns:
        The file as bytes, a zip archive with the labels behind it.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema
    from mediapipe.tasks.metadata import metadata_schema_py_generated as metadata

    def file_of_labels():
        return metadata.AssociatedFileT(
            name=LABELS_FILE, type=metadata.AssociatedFileType.TENSOR_AXIS_LABELS, description="class names"
        )

    pixels = metadata.TensorMetadataT(
        name="images",
        description="RGB pixels 0..255; normalization is in the graph",
        content=metadata.ContentT(
            contentPropertiesType=metadata.ContentProperties.ImageProperties,
            contentProperties=metadata.ImagePropertiesT(colorSpace=metadata.ColorSpaceType.RGB),
        ),
        processUnits=[
            metadata.ProcessUnitT(
                optionsType=metadata.ProcessUnitOptions.NormalizationOptions,
                options=metadata.NormalizationOptionsT(mean=[0.0], std=[1.0]),
            )
        ],
        stats=metadata.StatsT(max=[255.0], min=[0.0]),
    )
    probabilities = metadata.TensorMetadataT(
        name="probabilities",
        description="of every class",
        content=metadata.ContentT(
            contentPropertiesType=metadata.ContentProperties.FeatureProperties,
            contentProperties=metadata.FeaturePropertiesT(),
        ),
        stats=metadata.StatsT(max=[1.0], min=[0.0]),
        associatedFiles=[file_of_labels()],
    )
    values = metadata.ModelMetadataT(
        name="ImageClassifier",
        description=description,
        version=version,
        subgraphMetadata=[
            metadata.SubGraphMetadataT(inputTensorMetadata=[pixels], outputTensorMetadata=[probabilities])
        ],
        minParserVersion=PARSER_VERSION,
    )
    builder = flatbuffers.Builder()
    builder.Finish(values.Pack(builder), IDENTIFIER)
    model = read(content)
    model.buffers.append(schema.BufferT(data=np.frombuffer(bytes(builder.Output()), np.uint8)))
    entry = schema.MetadataT(name=METADATA_NAME.encode(), buffer=len(model.buffers) - 1)
    model.metadata = [*(model.metadata or []), entry]
    archive = io.BytesIO()
    archive.write(write(model))
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_STORED) as files:
        files.writestr(zipfile.ZipInfo(LABELS_FILE), "\n".join(labels) + "\n")
    return with_checksum(archive.getvalue())
