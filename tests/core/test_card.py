"""The card and the ONNX metadata reader, on files made by hand: none may raise anything but ModelFileError."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from derain.card import CARD_KEY, MAX_CARD_BYTES, ModelCard, parse_card, read_card
from derain.errors import ModelFileError
from derain.onnx_metadata import read_metadata


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, body: bytes | int) -> bytes:
    if isinstance(body, int):
        return varint(number << 3) + varint(body)
    return varint(number << 3 | 2) + varint(len(body)) + body


def model_bytes(metadata: dict[str, str], graph: bytes = b"\x0a\x03abc") -> bytes:
    """A ModelProto: ir_version, producer_name, graph, opset_import, metadata_props."""
    entries = b"".join(field(14, field(1, key.encode()) + field(2, value.encode())) for key, value in metadata.items())
    return field(1, 10) + field(2, b"hand") + field(7, graph) + field(8, field(2, 17)) + entries


@pytest.fixture
def document() -> dict[str, Any]:
    port = {"layout": "NHWC", "dtype": "uint8", "channels": "BGR", "value_range": [0, 255]}
    return {
        "schema_version": 1,
        "name": "nano",
        "system": "acgf",
        "variant": "edge",
        "inputs": [{"name": "frame", **port}],
        "outputs": [{"name": "derained", **port}],
        "attention": "learned",
        "geometry": {
            "multiple_of": 8,
            "minimum": 8,
            "receptive_field": None,
            "tiling": "needs_context",
            "tiling_reason": "thumbnail head",
        },
        "profile": {"min": [1, 8, 8], "opt": [1, 480, 640], "max": [1, 2160, 3840]},
        "opset": 17,
        "precision": {"kind": "float32"},
        "cost": {"parameters": 1000, "kmac_per_pixel": 3.5},
        "quality": [
            {
                "dataset": "Rain100L/test",
                "protocol": "y_matlab",
                "images": 100,
                "psnr": 31.2,
                "ssim": 0.93,
                "measured": "export",
            }
        ],
        "licence": "Apache-2.0",
        "derain_version": "0.1.0",
    }


def test_read_from_a_file(tmp_path: Path, document: dict[str, Any]) -> None:
    file = tmp_path / "a.onnx"
    file.write_bytes(model_bytes({"other": "ä", CARD_KEY: json.dumps(document)}))
    assert read_metadata(file)["other"] == "ä"
    card = read_card(str(file))
    assert card.geometry.multiple_of == 8
    assert not card.profile.fixed
    assert parse_card(card.to_json(), "a") == card


def test_onnx_itself_writes_what_is_read(tmp_path: Path, document: dict[str, Any]) -> None:
    onnx = pytest.importorskip("onnx")
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    ports = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("x", "y")]
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", ports[:1], ports[1:]))
    onnx.helper.set_model_props(model, {CARD_KEY: json.dumps(document), "empty": ""})
    onnx.save(model, tmp_path / "a.onnx")
    assert read_metadata(tmp_path / "a.onnx") == {CARD_KEY: json.dumps(document), "empty": ""}


def test_cut_off_at_every_byte(tmp_path: Path, document: dict[str, Any]) -> None:
    whole = model_bytes({CARD_KEY: json.dumps(document)})
    file = tmp_path / "a.onnx"
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(ModelFileError):
            read_card(file)


def test_every_byte_wrong(tmp_path: Path, document: dict[str, Any]) -> None:
    """A flipped byte may go unnoticed (in a text), but never escapes as another exception."""
    whole = model_bytes({CARD_KEY: json.dumps(document)})
    file = tmp_path / "a.onnx"
    for position in range(len(whole)):
        file.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        with suppress(ModelFileError):
            assert isinstance(read_card(file), ModelCard)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (b"\0" * 100, "not a whole ONNX file"),
        (b"PK\x03\x04" + b"\0" * 100, "not a whole ONNX file"),
        (b"hello world, this is text", "not a(n| whole) ONNX"),
        (field(1, 10), "has no graph"),
        (varint(7 << 3 | 2) + varint(2 << 30) + b"abc", "longer than the file"),
        (varint(14 << 3 | 2) + varint(2 << 30) + b"abc", "longer than the file"),
        (varint(7 << 3 | 2) + b"\xff" * 12, "more than ten bytes"),
        (field(7, b"") + field(1, 1) * 20_000, "more than 10000 fields"),
        (model_bytes({}) + field(14, field(1, b"\xff\xfe")), "not a whole ONNX file"),
        (model_bytes({}) + field(14, b"\x0a\x05ab"), "longer than the file"),
        (model_bytes({"k": "v" * (1 << 20)}), "metadata entry has"),
        (model_bytes({"k": "v"}), f"without a derain model card. Expected metadata under the key '{CARD_KEY}'"),
    ],
)
def test_files_that_are_no_model(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.onnx").write_bytes(content)
    with pytest.raises(ModelFileError, match=message):
        read_card(tmp_path / "a.onnx")


def test_a_declared_length_of_two_gigabytes_reads_nothing(tmp_path: Path) -> None:
    """In a sparse file of that size, too, the graph is skipped and not read."""
    file = tmp_path / "a.onnx"
    head = varint(7 << 3 | 2) + varint(2 << 30)
    file.write_bytes(head)
    os.truncate(file, len(head) + (2 << 30))
    assert read_metadata(file) == {}


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"cannot be opened \(No such file or directory\)"):
        read_card(tmp_path / "a.onnx")
    with pytest.raises(ModelFileError, match="is a folder"):
        read_card(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x" * (MAX_CARD_BYTES + 1), "characters. Expected at most"),
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("1" * 5000, "not (JSON|valid)"),
        ("[]", "not valid"),
        ("null", "not valid"),
        ('{"schema_version": 2}', "schema version 2. Expected 1 or older. .*newer derain"),
        ('{"schema_version": "1"}', "not valid at schema_version"),
        ("{}", "not valid at name"),
    ],
)
def test_cards_that_are_none(text: str, message: str) -> None:
    with pytest.raises(ModelFileError, match=f"(?s){message}") as caught:
        parse_card(text, "file.onnx")
    assert "'file.onnx'" in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("path", "value", "where"),
    [
        (["surprise"], 1, "surprise"),
        (["geometry", "surprise"], 1, "geometry.surprise"),
        (["geometry", "multiple_of"], 0, "geometry.multiple_of"),
        (["geometry", "minimum"], 10**9, "geometry.minimum"),
        (["inputs"], [], "inputs"),
        (["profile", "min"], [1, 8], "profile.min"),
        (["precision", "kind"], "int4", "precision.kind"),
        (["name"], "n" * 5000, "name"),
        (["cost", "kmac_per_pixel"], "NaN", "cost.kmac_per_pixel"),
    ],
)
def test_each_wrong_field_is_named(document: dict[str, Any], path: list[str], value: object, where: str) -> None:
    part = document
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    with pytest.raises(ModelFileError, match=f"not valid at {where}"):
        parse_card(json.dumps(document), "a")


def test_each_missing_field_is_named(document: dict[str, Any]) -> None:
    optional = {"schema_version", "quality"}
    for key in document.keys() - optional:
        with pytest.raises(ModelFileError, match=f"not valid at {key}: Field required"):
            parse_card(json.dumps({name: value for name, value in document.items() if name != key}), "a")


def test_a_profile_must_be_ordered(document: dict[str, Any]) -> None:
    document["profile"]["max"] = [1, 240, 320]
    with pytest.raises(ModelFileError, match=r"profile.*min <= opt <= max"):
        parse_card(json.dumps(document), "a")


def test_value_range_must_be_ordered(document: dict[str, Any]) -> None:
    document["inputs"][0]["value_range"] = [255, 0]
    with pytest.raises(ModelFileError, match=r"inputs\.0.*255.*0"):
        parse_card(json.dumps(document), "a")


def test_an_infinite_psnr_survives_but_nan_does_not(document: dict[str, Any]) -> None:
    """An identity network leaves a dry picture as it is: PSNR against the input is infinite."""
    document["quality"][0]["psnr"] = float("inf")
    card = parse_card(json.dumps(document), "a")
    assert json.loads(card.to_json())  # standard JSON
    assert "NaN" not in card.to_json()
    assert parse_card(card.to_json(), "a").quality[0].psnr == float("inf")
    document["quality"][0]["psnr"] = float("nan")
    with pytest.raises(ModelFileError, match=r"not valid at quality\.0\.psnr"):
        parse_card(json.dumps(document), "a")
