"""The fields of ONNX that a graph of a bundle may have, by their numbers in onnx.proto, and how many of each.

Fields that name further files, code, or graphs in graphs are known here only to be refused by name.
"""

from __future__ import annotations

from edge_ad.bundle.graph.wire import Field, Kind, Schema

MOST_RANK = 8
MOST_NODES = 20_000
MOST_TENSORS = 40_000
MOST_ENDS = 1024  # inputs or outputs of a node
MOST_INTS = 1024  # of an attribute
MOST_TYPED = 1 << 16  # numbers of a tensor that are not stored raw

_N, _F, _T, _M, _B = Kind.NUMBER, Kind.FLOAT, Kind.TEXT, Kind.MESSAGE, Kind.BYTES
OUTSIDE = "weights lie in the graph itself, never in a file beside it; export the bundle again"
_NO_CODE = "a graph of a bundle has none"

MODEL: Schema = {
    1: Field("ir_version", _N),
    2: Field("producer_name", _B),
    3: Field("producer_version", _B),
    4: Field("domain", _B),
    5: Field("model_version", _N),
    6: Field("doc_string", _B),
    7: Field("graph", _M),
    8: Field("opset_import", _M, 16),
    14: Field("metadata_props", _B, refused=_NO_CODE),
    20: Field("training_info", _M, refused=_NO_CODE),
    25: Field("functions", _M, refused=_NO_CODE),
    26: Field("configuration", _M, refused=_NO_CODE),
}
OPERATOR_SET: Schema = {1: Field("domain", _T), 2: Field("version", _N)}
GRAPH: Schema = {
    1: Field("node", _M, MOST_NODES),
    2: Field("name", _B),
    5: Field("initializer", _M, MOST_TENSORS),
    10: Field("doc_string", _B),
    11: Field("input", _M, 16),
    12: Field("output", _M, 16),
    13: Field("value_info", _M, MOST_TENSORS),
    14: Field("quantization_annotation", _M, refused=_NO_CODE),
    15: Field("sparse_initializer", _M, refused=_NO_CODE),
    16: Field("metadata_props", _B, 1024),
}
NODE: Schema = {
    1: Field("input", _T, MOST_ENDS),
    2: Field("output", _T, MOST_ENDS),
    3: Field("name", _T),
    4: Field("op_type", _T),
    5: Field("attribute", _M, 64),
    6: Field("doc_string", _B),
    7: Field("domain", _T),
    8: Field("overload", _T, refused=_NO_CODE),
    9: Field("metadata_props", _B, 1024),
}
ATTRIBUTE: Schema = {
    1: Field("name", _T),
    2: Field("f", _F),
    3: Field("i", _N),
    4: Field("s", _B),
    5: Field("t", _M),
    6: Field("g", _M, refused="no graph stands inside of another"),
    7: Field("floats", _F, MOST_INTS),
    8: Field("ints", _N, MOST_INTS),
    9: Field("strings", _B, MOST_INTS),
    10: Field("tensors", _M, refused=_NO_CODE),
    11: Field("graphs", _M, refused="no graph stands inside of another"),
    13: Field("doc_string", _B),
    14: Field("tp", _M, refused=_NO_CODE),
    15: Field("type_protos", _M, refused=_NO_CODE),
    20: Field("type", _N),
    21: Field("ref_attr_name", _T, refused=_NO_CODE),
    22: Field("sparse_tensor", _M, refused=_NO_CODE),
    23: Field("sparse_tensors", _M, refused=_NO_CODE),
}
TENSOR: Schema = {
    1: Field("dims", _N, MOST_RANK),
    2: Field("data_type", _N),
    3: Field("segment", _M, refused=_NO_CODE),
    4: Field("float_data", _F, MOST_TYPED),
    5: Field("int32_data", _N, MOST_TYPED),
    6: Field("string_data", _B, refused=_NO_CODE),
    7: Field("int64_data", _N, MOST_TYPED),
    8: Field("name", _T),
    9: Field("raw_data", _B),
    10: Field("double_data", _B, refused=_NO_CODE),
    11: Field("uint64_data", _B, refused=_NO_CODE),
    12: Field("doc_string", _B),
    13: Field("external_data", _M, refused=OUTSIDE),
    14: Field("data_location", _N),
    16: Field("metadata_props", _B, 1024),
}
VALUE: Schema = {
    1: Field("name", _T),
    2: Field("type", _M),
    3: Field("doc_string", _B),
    4: Field("metadata_props", _B, 1024),
}
TYPE: Schema = {
    1: Field("tensor_type", _M),
    4: Field("sequence_type", _M, refused=_NO_CODE),
    5: Field("map_type", _M, refused=_NO_CODE),
    6: Field("denotation", _B),
    8: Field("sparse_tensor_type", _M, refused=_NO_CODE),
    9: Field("optional_type", _M, refused=_NO_CODE),
}
TENSOR_TYPE: Schema = {1: Field("elem_type", _N), 2: Field("shape", _M)}
SHAPE: Schema = {1: Field("dim", _M, MOST_RANK)}
DIMENSION: Schema = {1: Field("dim_value", _N), 2: Field("dim_param", _T), 3: Field("denotation", _B)}
