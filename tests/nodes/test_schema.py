from __future__ import annotations

import pytest

# design: id, class, inputs in order (a ? is optional), defaults
NODES = {
    "AdaINLoadEncoder": ("LoadEncoder", "name dtype=auto hub_file?="),
    "AdaINLoadDecoder": ("LoadDecoder", "name dtype=auto hub_file?="),
    "AdaINEncodeStyle": ("EncodeStyle", "encoder image size=512 combine=pool mask? match_colors_of?"),
    "AdaINStyleMix": (
        "StyleMix",
        "style_1 weight_1=1.0 style_2 weight_2=1.0 style_3? weight_3?=1.0 style_4? weight_4?=1.0"
        " style_5? weight_5?=1.0 style_6? weight_6?=1.0",
    ),
    "AdaINMaskStyle": ("MaskStyle", "style mask"),
    "AdaINStyleSweep": ("StyleSweep", "style_from style_to frames=16 curve=linear"),
    "AdaINSaveStyle": ("SaveStyle", "style name thumbnail?"),
    "AdaINLoadStyle": ("LoadStyle", "name"),
    "AdaINTransfer": ("AdaIN", "encoder content style alpha=1.0 content_statistics=image half_life=8.0 tile=-1"),
    "AdaINDecode": ("Decode", "decoder features tile=-1 keep_colors_of?"),
    "AdaINStyleTransfer": ("StyleTransfer", "content model style alpha=1.0 keep_colors=False style_image?"),
    "AdaINStylizeVideo": (
        "StylizeVideo",
        "video encoder decoder style alpha=1.0 content_statistics=running half_life=8.0",
    ),
    "AdaINLatent": ("LatentAdaIN", "latent reference alpha=1.0 statistics=image"),
    "AdaINModel": ("ModelAdaIN", "model reference alpha=0.5 start_percent=0.0 end_percent=0.6"),
    "AdaINTrainDecoder": (
        "TrainDecoder",
        "encoder contents styles steps=2000 batch_size=4 crop_size=256 learning_rate=0.0001 style_weight=10.0"
        " content_weight=1.0 seed=0 name=my-decoder preview_every=50 start_from? content_images? style_images? loss_encoder?",
    ),
    "AdaINLearnStyle": (
        "LearnStyle",
        "encoder decoder style_image content_images steps=100 learning_rate=0.02 seed=0 loss_encoder?",
    ),
}


def test_every_node_is_registered_under_its_id(schemas):
    assert {key: node.__name__ for key, (node, _) in schemas.items()} == {key: name for key, (name, _) in NODES.items()}


@pytest.mark.parametrize("node_id", NODES)
def test_inputs_keep_their_order_and_defaults_since_workflows_store_values_by_position(schemas, node_id):
    inputs = schemas[node_id][1].inputs
    expected = NODES[node_id][1].split()
    assert [item.id + "?" * item.optional for item in inputs] == [item.split("=")[0] for item in expected]
    for found, item in zip(inputs, expected, strict=True):
        if "=" in item:
            assert str(found.default) == item.split("=")[1]


@pytest.mark.parametrize("node_id", NODES)
def test_everything_explains_itself(schemas, node_id):
    schema = schemas[node_id][1]
    assert schema.category == "AdaIN" and schema.display_name.endswith("(AdaIN)") and schema.description
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
