"""Checkpoints of DRAEM in every form that they come in, and what is said where a file is something else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec
from edge_ad.errors import CheckpointError
from edge_ad.export.options import export_options
from edge_ad.models import FAMILIES, model_family
from edge_ad.models.draem.checkpoint import load_draem
from edge_ad.models.draem.config import DraemConfig
from edge_ad.models.draem.network import Draem
from edge_ad.models.draem.options import DraemOptions
from edge_ad.models.patch_head.config import HeadConfig
from edge_ad.models.patch_head.network import Discriminator
from edge_ad.models.patch_head.options import HeadOptions
from edge_ad.models.recognise import families_of, loaded_as
from edge_ad.models.references import References

State = dict[str, Tensor]
SPECS = (PreprocessSpec(32, 64), PostprocessSpec())
NONE = References(None, SPECS[0])
WIDTHS = DraemConfig(4, 3)  # not alike, so that no part is taken for the other
FIRST = "encoder.block1.0.weight"


@pytest.fixture(scope="module")
def network(deterministic_state: Callable[[Any], State]) -> Draem:
    """Do not change it."""
    made = Draem(WIDTHS)
    made.load_state_dict(deterministic_state(made.state_dict()))
    return made.eval()


@pytest.fixture
def parts(network: Draem) -> tuple[State, State]:
    return network.reconstruction.state_dict(), network.segmentation.state_dict()


@pytest.fixture
def pair(tmp_path: Path, parts: tuple[State, State]) -> Path:
    """The authors' two files."""
    torch.save(parts[0], tmp_path / "bottle_.pckl")
    torch.save(parts[1], tmp_path / "bottle__seg.pckl")
    return tmp_path / "bottle_.pckl"


@pytest.fixture
def save(tmp_path: Path) -> Callable[[Any], Path]:
    def write(content: Any) -> Path:
        torch.save(content, tmp_path / "one.pth")
        return tmp_path / "one.pth"

    return write


def load(checkpoint: Path, **options: Any) -> Any:
    return load_draem(checkpoint, DraemOptions(**options))


def refused(checkpoint: Path, **options: Any) -> str:
    """What loading as DRAEM says, as the command does it."""
    with pytest.raises(CheckpointError) as caught:
        loaded_as(model_family("draem"), checkpoint, DraemOptions(**options), NONE)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def assert_same(found: Draem, wanted: Draem) -> None:
    state = found.state_dict()
    assert all(torch.equal(state[key], value) for key, value in wanted.state_dict().items())


def images() -> Tensor:
    return torch.rand(2, 3, 32, 64, generator=torch.Generator().manual_seed(5))


# What is read


def test_the_authors_pair(pair: Path, network: Draem) -> None:
    loaded = load(pair)
    assert_same(loaded.network, network)
    assert loaded.config == {"base_width": 4, "base_channels": 3, "color_order": "bgr"}
    assert len(loaded.notes) == 1 and "assumed bgr" in loaded.notes[0] and "--color-order" in loaded.notes[0]
    assert not loaded.network.training
    assert not any(weight.requires_grad for weight in loaded.network.parameters())


def test_what_is_given_is_not_noted(pair: Path) -> None:
    loaded = load(pair, color_order="rgb")
    assert loaded.config["color_order"] == "rgb" and loaded.notes == ()


def test_the_other_half_may_lie_elsewhere(pair: Path, network: Draem, tmp_path: Path) -> None:
    elsewhere = (tmp_path / "bottle__seg.pckl").rename(tmp_path / "d.pckl")
    with pytest.raises(CheckpointError, match=r"bottle__seg\.pckl is missing"):
        load(pair)
    assert_same(load(pair, segmentation_checkpoint=elsewhere).network, network)


def test_the_hash_is_of_both_files(pair: Path, parts: tuple[State, State]) -> None:
    before = load(pair).checkpoint_sha256
    assert load(pair).checkpoint_sha256 == before
    changed = dict(parts[1])
    changed["decoder_segment.fin_out.0.bias"] = changed["decoder_segment.fin_out.0.bias"] + 1
    torch.save(changed, pair.with_name("bottle__seg.pckl"))
    assert load(pair).checkpoint_sha256 != before


def test_both_halves_in_one_bare_dictionary(parts: tuple[State, State], save: Any, network: Draem) -> None:
    loaded = load(save({**parts[1], **parts[0]}))
    assert_same(loaded.network, network)
    assert loaded.config["color_order"] == "bgr"


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_our_own_file_tells_the_order_of_colours(
    parts: tuple[State, State], save: Any, network: Draem, order: str
) -> None:
    loaded = load(save({"reconstruction": parts[0], "segmentation": parts[1], "color_order": order}))
    assert_same(loaded.network, network)
    assert loaded.config["color_order"] == order and loaded.notes == ()


def test_our_own_file_with_an_order_that_is_none(parts: tuple[State, State], save: Any) -> None:
    loaded = load(save({"reconstruction": parts[0], "segmentation": parts[1], "color_order": "brg"}))
    assert loaded.config["color_order"] == "bgr" and "assumed bgr" in loaded.notes[0]


def anomalib(parts: tuple[State, State]) -> dict[str, Any]:
    """As Lightning saves anomalib's module."""
    names = ("model.reconstructive_subnetwork.", "model.discriminative_subnetwork.")
    state = {prefix + key: value for prefix, part in zip(names, parts, strict=True) for key, value in part.items()}
    return {"epoch": 3, "state_dict": {**state, "image_threshold": torch.tensor(0.5)}}


def test_anomalibs_is_converted(parts: tuple[State, State], save: Any, network: Draem) -> None:
    """Theirs feeds the picture, in R, G, B, before its reconstruction; ours has to give the same from either form."""
    loaded = load(save(anomalib(parts)))
    assert loaded.config["color_order"] == "rgb"
    (note,) = loaded.notes
    assert "anomalib" in note and "R, G, B" in note and "before its reconstruction" in note
    image = images()
    with torch.no_grad():
        made = network.reconstruction(image)
        wanted = torch.softmax(network.segmentation(torch.cat([image, made], dim=1)), dim=1)[:, 1]
        torch.testing.assert_close(loaded.network(image), wanted, rtol=0, atol=2e-6)
        family = model_family("draem")
        for form in (family.published(loaded, *SPECS), family.fast(loaded, *SPECS)):
            torch.testing.assert_close(torch.sigmoid(form(image)), wanted, rtol=0, atol=2e-5)
        assert (network(image) - wanted).abs().max() > 0.01, "control: the order of the two matters here"


def test_official_weights_are_fed_blue_first(pair: Path, network: Draem) -> None:
    """The exported forms eat R, G, B all the same."""
    loaded, family, image = load(pair), model_family("draem"), images()
    with torch.no_grad():
        wanted = network(image.flip(1))
        for form in (family.published(loaded, *SPECS), family.fast(loaded, *SPECS)):
            torch.testing.assert_close(torch.sigmoid(form(image)), wanted, rtol=0, atol=2e-5)
        assert (network(image) - wanted).abs().max() > 0.01, "control: the order of colours matters here"


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_wrappers_are_opened_and_said(pair: Path, parts: tuple[State, State], network: Draem, prefix: str) -> None:
    torch.save({"state_dict": {prefix + key: value for key, value in parts[0].items()}, "epoch": 3}, pair)
    seg = pair.with_name("bottle__seg.pckl")
    torch.save({prefix + key: value for key, value in parts[1].items()}, seg)
    loaded = load(pair)
    assert_same(loaded.network, network)
    said = " ".join(loaded.notes)
    assert "'state_dict'" in said and "bottle__seg.pckl: every name starts with" in said
    assert families_of(pair) == {"draem": f"state_dict.{FIRST}"}


def test_counters_may_lack(pair: Path, parts: tuple[State, State], network: Draem) -> None:
    torch.save({key: value for key, value in parts[0].items() if not key.endswith("num_batches_tracked")}, pair)
    with torch.no_grad():
        assert torch.equal(load(pair).network(images()), network(images()))


# What is refused


def test_one_half_is_missing(pair: Path) -> None:
    pair.with_name("bottle__seg.pckl").unlink()
    text = refused(pair)
    assert "bottle__seg.pckl is missing" in text and "--segmentation-checkpoint" in text


def test_the_second_half_in_place_of_the_first(pair: Path) -> None:
    text = refused(pair.with_name("bottle__seg.pckl"))
    assert "holds the segmentation alone" in text and "bottle_.pckl" in text


def test_the_first_half_twice(pair: Path) -> None:
    again = pair.with_name("again.pckl")
    again.write_bytes(pair.read_bytes())
    for second in (pair, again):
        text = refused(pair, segmentation_checkpoint=second)
        assert second.name in text and "'encoder_segment.block1.0.weight' is missing" in text


@pytest.mark.parametrize(("half", "other"), [("reconstruction", "segmentation"), ("segmentation", "reconstruction")])
def test_half_of_our_own_file(parts: tuple[State, State], save: Any, half: str, other: str) -> None:
    text = refused(save({half: parts[half == "segmentation"], "color_order": "rgb"}))
    assert f"one.pth: holds '{half}' without '{other}'" in text


def test_a_second_half_beside_a_whole(parts: tuple[State, State], save: Any, pair: Path) -> None:
    """What is asked for is not passed over in silence."""
    whole = save({"reconstruction": parts[0], "segmentation": parts[1]})
    text = refused(whole, segmentation_checkpoint=pair.with_name("bottle__seg.pckl"))
    assert "holds both halves" in text and "segmentation_checkpoint" in text


def changed(state: State, key: str, value: Tensor | None) -> State:
    return {name: tensor for name, tensor in {**state, key: value}.items() if tensor is not None}


def test_a_width_that_changes_on_the_way(pair: Path, parts: tuple[State, State]) -> None:
    torch.save(changed(parts[0], "decoder.db3.0.weight", torch.zeros(8, 9, 3, 3)), pair)
    text = refused(pair)
    for words in ("'decoder.db3.0.weight'", "has shape (8, 9, 3, 3)", "expects (8, 8, 3, 3)", "reconstruction"):
        assert words in text


WIDE = 20_000  # a network as wide would take 2 TB


@pytest.mark.parametrize("half", [0, 1])
def test_a_width_that_only_the_first_layer_has_costs_no_memory(
    pair: Path, parts: tuple[State, State], half: int
) -> None:
    key = (FIRST, "encoder_segment.block1.0.weight")[half]
    file = (pair, pair.with_name("bottle__seg.pckl"))[half]
    torch.save(changed(parts[half], key, torch.zeros(WIDE, 3 * (half + 1), 3, 3)), file)
    assert f"expects ({WIDE},)" in refused(pair)


def test_a_shape_that_the_file_does_not_hold(pair: Path, parts: tuple[State, State]) -> None:
    """Both are files of 300 kB that would make whoever reads them ask for 100 GB."""
    for claim in (torch.zeros(1).expand(10**9, 3, 3, 3), torch.empty(10**9, 3, 3, 3, device="meta")):
        torch.save(changed(parts[0], FIRST, claim), pair)
        assert pair.stat().st_size < 1_000_000
        assert f"'{FIRST}' is said to have shape (1000000000, 3, 3, 3)" in refused(pair)
    every_other = parts[0][FIRST].repeat_interleave(2, dim=0)[::2]
    torch.save(changed(parts[0], FIRST, every_other), pair)
    assert load(pair).config["base_width"] == 4, "control: a view of what is there is as good as any"


@pytest.mark.parametrize("shape", [(4, 6, 3, 3), (4, 3, 1, 1), (4, 27), (0, 3, 3, 3)])
def test_a_first_layer_that_is_none(pair: Path, parts: tuple[State, State], shape: tuple[int, ...]) -> None:
    torch.save(changed(parts[0], FIRST, torch.zeros(shape)), pair)
    assert f"'{FIRST}' has shape {shape}, wanted (width, 3, 3, 3)" in refused(pair)


@pytest.mark.parametrize(("value", "what"), [(None, "is missing"), (torch.zeros(3), "is not known")])
def test_a_tensor_too_few_or_too_many(pair: Path, parts: tuple[State, State], value: Tensor | None, what: str) -> None:
    key = "encoder.block5.0.weight" if value is None else "encoder.block5.sspcab.bias"
    torch.save(changed(parts[0], key, value), pair)
    text = refused(pair)
    assert f"tensor '{key}' of the reconstruction {what}" in text


@pytest.mark.parametrize("half", [0, 1])
def test_weights_that_are_no_numbers(pair: Path, parts: tuple[State, State], half: int) -> None:
    key = ("encoder.block2.1.running_var", "decoder_segment.db_b.0.bias")[half]
    spoilt = parts[half][key].clone()
    spoilt[0] = torch.nan
    file = (pair, pair.with_name("bottle__seg.pckl"))[half]
    torch.save(changed(parts[half], key, spoilt), file)
    text = refused(pair)
    assert f"'{key}' holds NaN" in text and file.name in text


def test_a_truncated_half(pair: Path) -> None:
    seg = pair.with_name("bottle__seg.pckl")
    seg.write_bytes(seg.read_bytes()[:1000])
    text = refused(pair)
    assert "segmentation checkpoint" in text and seg.name in text and "truncated" in text


# Which family it is


@pytest.fixture
def heads(tmp_path: Path) -> dict[str, Path]:
    """Checkpoints of the two families of heads."""
    paths = {}
    for family, bare in (("glass", False), ("simplenet", True)):
        paths[family] = tmp_path / f"{family}.pth"
        torch.save({"discriminator": Discriminator(12, 8, 2, bare_tail=bare).state_dict()}, paths[family])
    return paths


TAILS = {"glass": "discriminator.tail.0.weight", "simplenet": "discriminator.tail.weight"}


def test_every_family_is_told_by_its_own_tensors(heads: dict[str, Path], pair: Path, save: Any, parts: Any) -> None:
    for family, path in heads.items():
        assert families_of(path) == {family: TAILS[family]}
    assert families_of(pair) == {"draem": FIRST}
    assert list(families_of(save(anomalib(parts)))) == ["draem"]
    assert list(families_of(save({"reconstruction": parts[0], "segmentation": parts[1]}))) == ["draem"]
    assert families_of(save({"weight": torch.zeros(1)})) == {}
    assert families_of(pair.with_name("nowhere.pth")) == {}
    assert set(FAMILIES) >= {*heads, "draem"}


@pytest.mark.parametrize("family", ["glass", "simplenet"])
def test_a_head_is_no_draem(heads: dict[str, Path], family: str) -> None:
    text = refused(heads[family])
    assert f"'{TAILS[family]}'" in text and f"--family {family}" in text
    assert f"no DRAEM checkpoint, tensor '{FIRST}' is missing" in text


@pytest.mark.parametrize(("family", "other"), [("glass", "simplenet"), ("simplenet", "glass")])
def test_one_head_is_not_the_other(heads: dict[str, Path], family: str, other: str) -> None:
    """Their signs differ: a mistake would call all that is normal anomalous."""
    with pytest.raises(CheckpointError) as caught:
        loaded_as(model_family(family), heads[other], HeadOptions(), NONE)
    assert f"'{TAILS[other]}'" in str(caught.value) and f"--family {other}" in str(caught.value)


@pytest.mark.parametrize("family", ["glass", "simplenet"])
def test_a_draem_is_no_head(pair: Path, save: Any, parts: tuple[State, State], family: str) -> None:
    for path in (pair, save({"reconstruction": parts[0], "segmentation": parts[1]})):
        with pytest.raises(CheckpointError) as caught:
            loaded_as(model_family(family), path, HeadOptions(backbone=HeadConfig.backbone), NONE)
        assert FIRST in str(caught.value) and "--family draem" in str(caught.value)


def test_export_without_a_family(heads: dict[str, Path], pair: Path, tmp_path: Path) -> None:
    def chosen(path: Path) -> tuple[str, str]:
        options = export_options({"checkpoint": path, "output": tmp_path / "b"}, "test")
        return options.family, " ".join(options.assumed)

    assert chosen(heads["glass"]) == ("glass", "")
    family, said = chosen(heads["simplenet"])
    assert family == "simplenet" and TAILS["simplenet"] in said and "--family" in said
    family, said = chosen(pair)
    assert family == "draem" and FIRST in said
