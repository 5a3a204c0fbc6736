"""The nodes are as docs/design.md, section 4, has them in its table."""

from __future__ import annotations

import re

import pytest
from root import ROOT

DESIGN = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
ROWS = [line.strip("|").split("|") for line in DESIGN.splitlines() if line.startswith("| AdaIN")]
# by id: class, inputs in their order (a ? is behind optional ones) with defaults, outputs
CATEGORIES = dict(re.findall(r"^\| `(AdaIN[\w/]*)` \| (.+) \|$", DESIGN, re.M))
NODES = {node_id: cells for node_id, *cells in ([cell.strip(" `") for cell in row] for row in ROWS)}


def test_every_node_is_registered_under_its_id(schemas):
    assert {key: node.__name__ for key, (node, _) in schemas.items()} == {key: name for key, (name, *_) in NODES.items()}


@pytest.mark.parametrize("node_id", NODES)
def test_inputs_keep_their_order_and_defaults_since_workflows_store_values_by_position(schemas, node_id):
    inputs = schemas[node_id][1].inputs
    expected = NODES[node_id][1].split()
    assert [item.id + "?" * item.optional for item in inputs] == [item.split("=")[0] for item in expected]
    for found, item in zip(inputs, expected, strict=True):
        if "=" in item:
            assert str(found.default) == item.split("=")[1]


@pytest.mark.parametrize("node_id", NODES)
def test_outputs_keep_their_order_and_types(schemas, node_id):
    assert [item.get_io_type() for item in schemas[node_id][1].outputs] == NODES[node_id][2].split()


@pytest.mark.parametrize("node_id", NODES)
def test_everything_explains_itself(schemas, node_id):
    schema = schemas[node_id][1]
    title = schema.display_name
    assert title.endswith(" (AdaIN)") or title.startswith("AdaIN ") or title == "Style Transfer"
    assert title.removesuffix(" (AdaIN)") in CATEGORIES[schema.category].split(", ") and schema.description
    assert all(item.tooltip for item in [*schema.inputs, *schema.outputs])


def test_lists_name_pairs_once_and_public_files_by_their_name(schemas, folders):
    (folders / "models" / "adain" / "public.pth").touch()
    (folders / "models" / "adain" / "notes.txt").touch()
    node = schemas["AdaINLoadEncoder"][0]
    assert node.define_schema().inputs[0].options == ["small", "vgg19", "vgg19-imagenet", "public.pth"]


def test_a_new_file_is_listed_the_next_time(schemas, folders):
    node = schemas["AdaINLoadDecoder"][0]
    (folders / "output" / "adain").mkdir(parents=True)
    (folders / "output" / "adain" / "mine-decoder.safetensors").touch()
    assert node.define_schema().inputs[0].options == ["mine", "small"]
