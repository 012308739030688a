"""No engine is called for a graph that is none of ours; a bundle that holds one says so without any engine."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hostile_graphs import OPERATORS, SIZES, hostile_graphs, per_picture, with_part
from onnx import TensorProto, helper, numpy_helper
from sealed_bundles import with_graph

import edge_ad
from edge_ad.bundle.bundle import Bundle
from edge_ad.bundle.graph.check import checked_graph
from edge_ad.bundle.graph.contract import GraphContract
from edge_ad.bundle.graph.operators import COMMON
from edge_ad.cli.main import main
from edge_ad.errors import BundleError
from edge_ad.runtime.engines import openvino as openvino_engine
from edge_ad.runtime.judge.loader import open_graph

Model = onnx.ModelProto
ENGINES = ("openvino", "onnxruntime")


class Calls:
    """What takes the place of both engines, and counts how often a graph came that far."""

    def __init__(self) -> None:
        self.count = 0

    def called(self, *_: Any, **__: Any) -> Any:
        self.count += 1
        raise RuntimeError("an engine was called")


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> Calls:
    import onnxruntime

    calls = Calls()
    monkeypatch.setattr(openvino_engine, "openvino_core", calls.called)
    monkeypatch.setattr(onnxruntime, "InferenceSession", calls.called)
    return calls


@pytest.fixture
def micro(micro_bundle: Path) -> Bundle:
    return Bundle.read(micro_bundle)


@pytest.fixture
def contract(micro: Bundle) -> GraphContract:
    return micro.graph_contract


@pytest.fixture
def graph(micro: Bundle) -> bytes:
    return micro.read_file("model.onnx")


def open_with(bundle: Path, engine: str, cache: Path) -> None:
    with edge_ad.open(bundle, engine=engine, engine_cache=cache):
        pass


def test_every_hostile_operator_and_size_is_refused_before_an_engine(
    micro_bundle: Path, graph: bytes, engines: Calls, tmp_path: Path
) -> None:
    refused: Counter[str] = Counter()
    for number, hostile in enumerate(hostile_graphs(graph)):
        bundle = with_graph(micro_bundle, hostile.graph, tmp_path / "hostile.edgead")
        with pytest.raises(BundleError, match=r"no engine is given model\.onnx") as caught:
            open_with(bundle, ENGINES[number % 2], tmp_path / "cache")
        assert hostile.operator in str(caught.value), f"{hostile.operator} {hostile.size}: {caught.value}"
        with pytest.raises(BundleError):
            Bundle.read(bundle).read_graph("fp32")  # what an engine would be given
        refused[hostile.operator] += 1
    assert engines.count == 0
    assert len(refused) == 34 and set(refused.values()) == {13} == {len(SIZES)} and sum(refused.values()) == 442


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_is_called_for_the_graph_without_them(
    micro_bundle: Path, graph: bytes, engines: Calls, tmp_path: Path, engine: str
) -> None:
    with pytest.raises((edge_ad.errors.EngineError, RuntimeError), match="an engine was called"):
        open_with(with_graph(micro_bundle, graph, tmp_path / "same.edgead"), engine, tmp_path / "cache")
    assert engines.count == 1


HARMLESS: dict[str, Callable[[], Any]] = {
    "Gather": lambda: OPERATORS["Gather"](15),
    "Slice": lambda: OPERATORS["Slice"](-16),
    "Expand": lambda: OPERATORS["Expand"](16),
    "Resize": lambda: (
        [
            helper.make_node("Unsqueeze", ["patch_map", "channel"], ["pictures"], "lift"),
            helper.make_node("Resize", ["pictures", "", "scales"], ["w"], "r", mode="nearest"),
        ],
        {"channel": np.array([1]), "scales": np.array([1, 1, 2, 1], np.float32)},
    ),
    "TopK": lambda: OPERATORS["TopK"](3),
    "CumSum": lambda: OPERATORS["CumSum"](2),
    "Unsqueeze": lambda: OPERATORS["Unsqueeze"](1),
    "ReduceSum": lambda: OPERATORS["ReduceSum"](1),
    "Conv": lambda: OPERATORS["Conv"](1),
    "MaxPool": lambda: OPERATORS["MaxPool"](3),
    "AveragePool": lambda: OPERATORS["AveragePool"](2),
    "Softmax": lambda: OPERATORS["Softmax"](2),
    "ArgMax": lambda: OPERATORS["ArgMax"](1),
    "Cast": lambda: OPERATORS["Cast"](TensorProto.FLOAT16),
}


@pytest.mark.parametrize("operator", HARMLESS)
def test_the_same_operators_with_sizes_that_fit_are_let_through(
    graph: bytes, contract: GraphContract, operator: str
) -> None:
    """Else a refusal would say nothing about the size."""
    assert checked_graph(per_picture(graph, HARMLESS[operator]()), contract)


def cut(model: Model) -> None:
    model.graph.node[3].input[0] = "nothing"


def with_cycle(model: Model) -> None:
    first, second = (node for node in model.graph.node if node.op_type == "Relu" and node.output[0] in ("a1", "a2"))
    first.input[0] = second.output[0]


def unsorted(model: Model) -> None:
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(nodes[::-1])


def with_external_data(model: Model) -> None:
    tensor = next(entry for entry in model.graph.initializer if entry.name == "w1")
    size = len(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "weights.bin"), ("offset", "0"), ("length", str(size))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value


def with_data_location(model: Model) -> None:
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL


def with_sparse(model: Model) -> None:
    sparse = model.graph.sparse_initializer.add()
    sparse.values.CopyFrom(numpy_helper.from_array(np.float32([1]), "sparse"))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.int64([2**40]), "where"))
    sparse.dims.append(4)


def with_function(model: Model) -> None:
    model.functions.add().name = "own"


def with_training(model: Model) -> None:
    model.training_info.add().initialization.name = "learn"


def with_domain(model: Model) -> None:
    model.opset_import.append(helper.make_opsetid("com.example", 1))


def with_foreign_node(model: Model) -> None:
    model.graph.node[2].domain = "com.microsoft"


def with_if(model: Model) -> None:
    branch = helper.make_graph([helper.make_node("Identity", ["a1"], ["b"])], "branch", [], [])
    model.graph.node.append(helper.make_node("If", ["a1"], ["c"], "branches", then_branch=branch, else_branch=branch))


def with_loop(model: Model) -> None:
    body = helper.make_graph([helper.make_node("Identity", ["a1"], ["b"])], "body", [], [])
    model.graph.node.append(helper.make_node("Loop", ["", ""], ["c"], "loop", body=body))


def with_opset(version: int) -> Callable[[Model], None]:
    def change(model: Model) -> None:
        model.opset_import[0].version = version

    return change


def with_ir_version(version: int) -> Callable[[Model], None]:
    def change(model: Model) -> None:
        model.ir_version = version

    return change


def with_second_opset(model: Model) -> None:
    model.opset_import.append(helper.make_opsetid("", 13))


def with_double_name(model: Model) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.float32([1]), "w1"))


def with_double_output(model: Model) -> None:
    model.graph.node.append(helper.make_node("Relu", ["c0"], ["a1"], "again"))


def with_double_node(model: Model) -> None:
    model.graph.node.append(helper.make_node("Relu", ["c0"], ["other"], "conv0"))


def with_shadowed_input(model: Model) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((1, 64, 64, 3), np.uint8), "image"))


def with_second_input(model: Model) -> None:
    model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))


def with_swapped_outputs(model: Model) -> None:
    outputs = [model.graph.output[index] for index in (1, 0, 2)]
    del model.graph.output[:]
    model.graph.output.extend(outputs)


def with_fewer_outputs(model: Model) -> None:
    del model.graph.output[2:]


def with_lie(model: Model) -> None:
    model.graph.value_info.append(helper.make_tensor_value_info("a1", TensorProto.FLOAT, ["N", 8, 64, 65]))


def with_lie_of_type(model: Model) -> None:
    model.graph.value_info.append(helper.make_tensor_value_info("a1", TensorProto.INT64, ["N", 8, 64, 64]))


def with_strings(model: Model) -> None:
    model.graph.initializer.append(helper.make_tensor("text", TensorProto.STRING, [1], [b"x"]))


def with_short_weights(model: Model) -> None:
    model.graph.initializer[0].dims[:] = [2**40]


def with_constant_answer(model: Model) -> None:
    last = next(node for node in model.graph.node if "pred_score" in node.output)
    model.graph.node.remove(last)
    model.graph.initializer.append(numpy_helper.from_array(np.float32([0.1]), "pred_score"))


def with_doubling(model: Model) -> None:
    """2³⁰ times what is there, in thirty nodes."""
    name = "a1"
    for step in range(30):
        model.graph.node.append(helper.make_node("Concat", [name, name], [f"twice{step}"], f"twice{step}", axis=1))
        name = f"twice{step}"


def with_outer_product(model: Model) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.ones((30_000, 1), np.float32), "column"))
    model.graph.initializer.append(numpy_helper.from_array(np.ones((1, 30_000), np.float32), "row"))
    model.graph.node.append(helper.make_node("MatMul", ["column", "row"], ["square"], "square"))


def with_long_work(model: Model) -> None:
    """Hours of multiplications that need no memory."""
    for key, channels in (("wide", 8), ("again", 256)):
        weights = numpy_helper.from_array(np.ones((256, channels, 3, 3), np.float32), key)
        model.graph.initializer.append(weights)
    name, key = "a1", "wide"
    for step in range(200):
        node = helper.make_node("Conv", [name, key], [f"p{step}"], f"p{step}", pads=[1, 1, 1, 1])
        model.graph.node.append(node)
        name, key = f"p{step}", "again"


def with_division_by_zero(model: Model) -> None:
    for name, value in (("ten", 10), ("zero", 0)):
        model.graph.initializer.append(numpy_helper.from_array(np.int64([value]), name))
    model.graph.node.append(helper.make_node("Div", ["ten", "zero"], ["d"], "divide"))


def with_empty_input(model: Model) -> None:
    next(node for node in model.graph.node if node.op_type == "Sigmoid").input.append("")


def with_nothing(model: Model) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(0, np.float32), "empty"))
    model.graph.node.append(helper.make_node("Relu", ["empty"], ["none"], "of nothing"))


def with_weights_of_pictures(model: Model) -> None:
    """Weights whose number is that of the pictures: what is computed of shapes comes everywhere."""
    nodes = [
        helper.make_node("Shape", ["a1"], ["sizes"], "sizes"),
        helper.make_node("ConstantOfShape", ["sizes"], ["weights"], "weights"),
        helper.make_node("Conv", ["a1", "weights"], ["mixed"], "mix"),
    ]
    model.graph.node.extend(nodes)


def with_pictures_behind_others(model: Model) -> None:
    names = ["a1", "one", "two"]
    for name in names[1:]:
        value = np.zeros((3, 8, 64, 64), np.float32)
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    model.graph.node.append(helper.make_node("Concat", names, ["joined"], "join", axis=0))


def with_metadata(model: Model) -> None:
    entry = model.metadata_props.add()
    entry.key, entry.value = "ort_config", "{}"


def mixing_pictures(model: Model) -> None:
    last = next(node for node in model.graph.node if "pred_score" in node.output)
    last.attribute[0].ints[:] = [0, 1, 2]


REFUSED: dict[str, tuple[Callable[[Model], None], str]] = {
    "an edge to nothing": (cut, "reads 'nothing', which nothing before it makes"),
    "a cycle": (with_cycle, "which nothing before it makes"),
    "not in order": (unsorted, "which nothing before it makes"),
    "external data": (with_external_data, "never in a file beside it"),
    "data somewhere else": (with_data_location, "never in a file beside it"),
    "sparse weights": (with_sparse, "sparse_initializer"),
    "a function": (with_function, "functions"),
    "training": (with_training, "training_info"),
    "a domain": (with_domain, "operators of 'com.example'"),
    "a node of another domain": (with_foreign_node, "is of 'com.microsoft'"),
    "branches": (with_if, "no graph stands inside of another"),
    "a loop": (with_loop, "no graph stands inside of another"),
    "opset 2^40": (with_opset(2**40), "opset 1099511627776, wanted 13 to 17"),
    "opset -1": (with_opset(-1), "opset -1, wanted 13 to 17"),
    "opset 12": (with_opset(12), "opset 12, wanted 13 to 17"),
    "opset 18": (with_opset(18), "opset 18, wanted 13 to 17"),
    "another opset": (with_opset(16), "opset 16, the manifest says 17"),
    "two opsets": (with_second_opset, "wanted one operator set, got 2"),
    "IR version": (with_ir_version(2**33), "IR version"),
    "a name twice": (with_double_name, "tensor 'w1' is made twice"),
    "a result twice": (with_double_output, "tensor 'a1' is made twice"),
    "a node twice": (with_double_node, "another node has the same name"),
    "a shadowed input": (with_shadowed_input, "tensor 'image' is made twice"),
    "a second input": (with_second_input, "inputs ['image', 'more'], wanted 'image' alone"),
    "other order": (with_swapped_outputs, "outputs ['anomaly_map', 'patch_map', 'pred_score']"),
    "fewer outputs": (with_fewer_outputs, "outputs ['patch_map', 'anomaly_map']"),
    "a false shape": (with_lie, "value_info: 'a1' is float32 (N, 8, 64, 64), the file says otherwise"),
    "a false type": (with_lie_of_type, "value_info: 'a1' is float32 (N, 8, 64, 64), the file says otherwise"),
    "texts": (with_strings, "string_data"),
    "too little data": (with_short_weights, "bytes for shape (1099511627776,)"),
    "a constant answer": (with_constant_answer, "output 'pred_score' does not depend on the picture"),
    "doubling": (with_doubling, "MiB of memory"),
    "an outer product": (with_outer_product, "MiB of memory"),
    "endless work": (with_long_work, "multiplies"),
    "division by zero": (with_division_by_zero, "divides whole numbers by what may be zero"),
    "an input too many": (with_empty_input, "2 inputs, wanted 1"),
    "nothing": (with_nothing, "input 0 has no elements"),
    "weights of pictures": (with_weights_of_pictures, "'mix' (Conv): has weights along axis 0"),
    "pictures behind others": (with_pictures_behind_others, "'join' (Concat): puts pictures and others"),
    "metadata": (with_metadata, "metadata_props"),
    "mixing pictures": (mixing_pictures, "brings together axis 0, which is that of the pictures"),
}


def changed(graph: bytes, change: Callable[[Model], None]) -> bytes:
    model = onnx.load_model_from_string(graph)
    change(model)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_named(graph: bytes, contract: GraphContract, name: str) -> None:
    change, words = REFUSED[name]
    with pytest.raises(BundleError) as caught:
        checked_graph(changed(graph, change), contract)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 500 and "\n" not in str(caught.value)


def index_node(kind: str, axis: int, **attributes: Any) -> list[Any]:
    outputs = ["best"] if kind != "TopK" else ["", "best"]
    inputs = ["patch_map"] if kind != "TopK" else ["patch_map", "count"]
    return [helper.make_node(kind, inputs, outputs, "best", axis=axis, **attributes)]


@pytest.mark.parametrize("kind", ["ArgMax", "ArgMin", "TopK"])
@pytest.mark.parametrize(("length", "fits"), [(17, True), (16, True), (15, False)])
def test_positions_are_gathered_from_an_axis_no_shorter_than_they_come_from(
    graph: bytes, contract: GraphContract, kind: str, length: int, fits: bool
) -> None:
    """The patch map has 16 rows and columns."""
    nodes = [*index_node(kind, 2), helper.make_node("Gather", ["table", "best"], ["w"], "look-up", axis=0)]
    part = nodes, {"table": np.ones((length, 2), np.float32), "count": np.array([1])}
    data = per_picture(graph, part)
    if fits:
        assert checked_graph(data, contract)
        return
    with pytest.raises(BundleError, match=r"'look-up' \(Gather\): indices 0 to 15 along an axis of 15"):
        checked_graph(data, contract)


@pytest.mark.parametrize(("further", "fits"), [([], True), ([16], False), ([-17], False)])
def test_positions_from_a_table_of_constants_are_followed(
    graph: bytes, contract: GraphContract, further: list[int], fits: bool
) -> None:
    """As a memory bank keeps the neighbours of each entry: positions that come from a table, itself looked up."""
    neighbours = np.array([*np.tile(np.arange(16), 8), *further], np.int64)
    nodes = [
        *index_node("ArgMax", 2),
        helper.make_node("Gather", ["neighbours", "best"], ["near"], "first", axis=0),
        helper.make_node("Gather", ["table", "near"], ["w"], "second", axis=0),
    ]
    part = nodes, {"neighbours": neighbours, "table": np.ones((16, 2), np.float32)}
    data = per_picture(graph, part)
    if fits:
        assert checked_graph(data, contract)
        return
    with pytest.raises(BundleError, match=r"'second' \(Gather\): indices"):
        checked_graph(data, contract)


@pytest.mark.parametrize("change", ["Cast", "Add", "Mul"])
def test_positions_that_are_computed_are_refused(graph: bytes, contract: GraphContract, change: str) -> None:
    """A value of the picture times 2^40 becomes an index that no tensor has."""
    arithmetic = {
        "Cast": [helper.make_node("Cast", ["patch_map"], ["far"], "cast", to=TensorProto.INT64)],
        "Add": [*index_node("ArgMax", 2), helper.make_node("Add", ["best", "much"], ["far"], "add")],
        "Mul": [*index_node("ArgMax", 2), helper.make_node("Mul", ["best", "much"], ["far"], "multiply")],
    }
    nodes = [*arithmetic[change], helper.make_node("Gather", ["table", "far"], ["w"], "look-up", axis=0)]
    part = nodes, {"much": np.array([2**40]), "table": np.ones((2**12, 1), np.float32)}
    known = "1099511627776 to 1099511627791 along" if change == "Add" else "are neither constants nor from TopK"
    with pytest.raises(BundleError, match=rf"'look-up' \(Gather\): indices {known}"):
        checked_graph(per_picture(graph, part), contract)


def test_an_export_is_held_to_what_its_family_says_it_writes(graph: bytes, contract: GraphContract) -> None:
    declared = replace(contract, operators=COMMON)
    checked_graph(graph, declared)
    bent = per_picture(graph, ([helper.make_node("Erf", ["patch_map"], ["w"], "bent")], {}))
    checked_graph(bent, contract)  # control: a bundle may hold whatever a rule is known of
    checked_graph(bent, replace(contract, operators=COMMON | {"Erf"}))
    with pytest.raises(BundleError, match=r"'bent' \(Erf\): this operator is not among the \d+ that its family says"):
        checked_graph(bent, declared)


def test_an_operator_without_a_rule_is_nobodys_to_declare(graph: bytes, contract: GraphContract) -> None:
    bent = per_picture(graph, ([helper.make_node("Tan", ["patch_map"], ["w"], "bent")], {}))
    with pytest.raises(BundleError, match=r"'bent' \(Tan\): this operator is not among the \d+ that a graph may hold"):
        checked_graph(bent, replace(contract, operators=COMMON | {"Tan"}))


def test_a_graph_made_elsewhere_is_refused_before_it_is_opened(micro: Bundle, graph: bytes, engines: Calls) -> None:
    with pytest.raises(BundleError, match="a fp16 graph for bundle"):
        open_graph(micro, changed(graph, with_opset(2**40)), "fp16")
    assert engines.count == 0


def test_a_compiled_blob_does_not_let_a_hostile_graph_through(
    micro_bundle: Path, graph: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check comes before the cache is asked: a blob there says nothing about the graph."""
    hostile = with_graph(micro_bundle, changed(graph, with_external_data), tmp_path / "hostile.edgead")
    asked: list[Any] = []
    monkeypatch.setattr(openvino_engine.BlobCache, "get", lambda *_: asked.append(1))
    with pytest.raises(BundleError, match="never in a file beside it"):
        open_with(hostile, "openvino", tmp_path / "cache")
    assert not asked
    open_with(micro_bundle, "openvino", tmp_path / "cache")
    assert asked  # the sound one comes that far


def test_info_and_doctor_name_what_is_refused_without_an_engine(
    micro_bundle: Path, graph: bytes, engines: Calls, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = OPERATORS["GatherND"](2**31)
    hostile = with_graph(micro_bundle, with_part(graph, part), tmp_path / "hostile.edgead")
    assert main(["info", "--json", str(hostile)]) == 5
    said = capsys.readouterr()
    facts = json.loads(said.out)  # what it holds is still said
    assert facts["graphs"]["fp32"].startswith("refused: ") and "'hostile' (GatherND)" in facts["graphs"]["fp32"]
    assert said.err.startswith("edge-ad: error: bundle ") and said.err.count("\n") == 1
    assert main(["info", "--json", str(micro_bundle)]) == 0
    assert json.loads(capsys.readouterr().out)["graphs"]["fp32"].startswith("clean: 19 nodes of 9 operators, opset 17")
    assert engines.count == 0


def test_run_refuses_it_with_the_exit_code_of_bundles(
    micro_bundle: Path, graph: bytes, engines: Calls, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = with_graph(micro_bundle, changed(graph, with_opset(2**40)), tmp_path / "hostile.edgead")
    arguments = [
        "--source",
        "sim:?frames=1",
        "--engine-cache",
        str(tmp_path / "cache"),
        "--output",
        str(tmp_path / "out"),
    ]
    assert main(["run", str(hostile), *arguments]) == 5
    assert "opset 1099511627776, wanted 13 to 17" in capsys.readouterr().err
    assert engines.count == 0
