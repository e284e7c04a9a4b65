"""Values of config.json that no model can have: one line with the field, whichever way the model is read."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import byte_tokenizer, tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st

from prunelab.errors import PrunelabError
from prunelab.inference import Scorer, ScoringRequest
from prunelab.models.config_validation import config_of
from prunelab.models.loading import class_for, load_model, supported
from prunelab.models.offloading import load_offloaded
from prunelab.models.streaming.model import open_streamed

VARIANTS = ("llama", "qwen2_window", "gemma2", "mistral_window", "llava")
Change = dict[str, Any]


@pytest.fixture(scope="module")
def fields_of() -> Callable[[str], Change]:
    """A family's config.json, as tiny models have it."""
    made = {}
    for variant in VARIANTS:
        model = tiny_model(variant)
        model.config.architectures = [type(model).__name__]
        made[variant] = json.loads(model.config.to_json_string(use_diff=False))
    return lambda variant: copy.deepcopy(made[variant])


def refusal(fields: Change) -> str:
    with pytest.raises(PrunelabError) as caught:
        config_of(fields, "model")
    return str(caught.value)


def test_one_line_names_field_and_remedy(fields_of: Callable[[str], Change]) -> None:
    for variant, change, field, remedy in (
        ("llama", {"rms_norm_eps": 1}, "rms_norm_eps is 1", "write 1.0"),
        ("gemma2", {"hidden_size": "32"}, "hidden_size is '32'", "write 32 without quotes"),
        ("mistral_window", {"vocab_size": 258.0}, "vocab_size is 258.0", "write 258"),
        ("qwen2_window", {"tie_word_embeddings": None}, "tie_word_embeddings is null", "write true or false"),
        ("llama", {"eos_token_id": {"id": 1}}, "eos_token_id is {'id': 1}", "write an integer"),
        ("llama", {"hidden_size": 0}, "hidden_size is 0", "write 1 or more"),
        ("llama", {"intermediate_size": -4}, "intermediate_size is -4", "write 0 or more"),
        ("llama", {"num_key_value_heads": 3}, "num_attention_heads is 8", "num_key_value_heads, 3"),
        ("llama", {"head_dim": 3}, "head_dim is 3", "even"),
        ("qwen2_window", {"num_hidden_layers": 3}, "layer_types has 4 entries", "write one entry for each block"),
        ("gemma2", {"layer_types": ["full_attention"] * 9}, "layer_types has 9 entries", "num_hidden_layers is 4"),
        ("gemma2", {"sliding_window": None}, "sliding_window", "full_attention"),
        ("llama", {"torch_dtype": "fp16", "dtype": None}, "torch_dtype is 'fp16'", "write 'float16'"),
        ("llama", {"dtype": "nn"}, "dtype is 'nn'", "float32"),
        ("llama", {"hidden_act": "swiglue"}, "hidden_act", "swiglue"),
        ("llama", {"pad_token_id": 258}, "pad_token_id is 258", "below vocab_size"),
        ("llama", {"architectures": "LlamaForCausalLM"}, "architectures is 'LlamaForCausalLM'", "list"),
        ("llama", {"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000", "2,000 or less"),
        ("llama", {"max_position_embeddings": 10**40}, "max_position_embeddings", "too large"),
        ("llama", {"to_dict": 1}, "to_dict", "leave it out"),
        ("llama", {"model_type": ["llama"]}, "model_type is ['llama']", "architecture"),
        ("llama", {"model_type": "lama"}, "model_type is 'lama'", "does not know"),
        ("llama", {"rope_parameters": {"rope_type": "liner"}}, "rope_parameters.rope_type", "linear"),
        ("llama", {"rope_parameters": {"rope_type": "linear", "factor": "2"}}, "factor is '2'", "number above 0"),
        ("llama", {"rope_parameters": {"rope_type": "longrope", "short_factor": [1.0], "long_factor": [1.0, 2.0],
                                       "original_max_position_embeddings": 8}}, "short_factor has 1", "write 2"),
        ("llama", {"per_layer_config": {"9": {}}}, "per_layer_config has the key '9'", "0 to 3"),
    ):  # fmt: skip
        fields = {**fields_of(variant), **change}
        message = refusal(fields) if field != "hidden_act" else _unbuildable(fields, variant)
        assert field in message, message
        assert remedy in message, message
        assert "\n" not in message


def _unbuildable(fields: Change, variant: str) -> str:
    from prunelab.models.config_validation import check_buildable
    from prunelab.models.families import find_family

    config = config_of(fields, "model")
    with pytest.raises(PrunelabError) as caught:
        check_buildable("model", class_for(config, find_family(config)), config)
    return str(caught.value)


def test_inner_parts_are_looked_through(fields_of: Callable[[str], Change]) -> None:
    for part, change, field in (
        ("text_config", {"rms_norm_eps": 0}, "text_config.rms_norm_eps is 0"),
        ("text_config", {"num_hidden_layers": "4"}, "text_config.num_hidden_layers is '4'"),
        ("vision_config", {"patch_size": 0}, "vision_config.patch_size is 0"),
        ("vision_config", {"hidden_size": -1}, "vision_config.hidden_size is -1"),
        ("text_config", {"dtype": "bf16"}, "text_config.dtype is 'bf16'"),
    ):
        fields = fields_of("llava")
        fields[part].update(change)
        assert field in refusal(fields)


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 12), st.sampled_from([10**12, 10**30, -(10**20)]),
    st.floats(-3, 12), st.text("ab4.-", max_size=3), st.lists(st.integers(0, 3), max_size=3),
    st.dictionaries(st.sampled_from(["rope_type", "type", "factor"]), st.sampled_from(["linear", "dynamic", 2, None])),
)  # fmt: skip
EXTRA = ("rope_scaling", "torch_dtype", "quantization_config", "per_layer_config", "sliding_window", "num_labels")


def _paths(fields: Change, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for key, value in fields.items():
        found.append((*path, key))
        if isinstance(value, dict):
            found += _paths(value, (*path, key))
    return found


@settings(max_examples=80, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_changed_value_is_refused_in_one_line_or_the_model_runs(
    data: st.DataObject, fields_of: Callable[[str], Change], tmp_path_factory: pytest.TempPathFactory
) -> None:
    fields = fields_of(data.draw(st.sampled_from(VARIANTS)))
    path = data.draw(st.sampled_from([*_paths(fields), *((key,) for key in EXTRA)]))
    place = fields
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = data.draw(VALUES)
    folder = tmp_path_factory.mktemp("config")
    (folder / "config.json").write_text(json.dumps(fields))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        refused, found = "", None
        try:
            found = supported(str(folder))
        except PrunelabError as error:
            refused = str(error)
        assert "\n" not in refused
        assert len(refused) < 1000
        if found is None:
            return
        _, _, config, family = found
        with torch.device("meta"):
            size = sum(p.numel() for p in class_for(config, family)(copy.deepcopy(config)).parameters())
        if size > 5_000_000:  # a part left out has its defaults, which are those of a large model
            return
        model = class_for(config, family)(config).eval()
        if config.get_text_config().vocab_size > 2:
            with torch.no_grad():
                assert model(input_ids=torch.tensor([[0, 1, 2]])).logits.shape[1] == 3


@pytest.mark.parametrize(("field", "value"), [("rms_norm_eps", 0), ("num_hidden_layers", "4"), ("head_dim", -2)])
def test_all_readers_refuse_alike(field: str, value: Any, tmp_path: Path, fields_of: Callable[[str], Change]) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**fields_of("llama"), field: value}))
    said = set()
    for read in (load_model, open_streamed, lambda name: load_offloaded(name, memory=1)):
        with pytest.raises(PrunelabError, match=f"config.json's {field} is") as caught:
            read(str(tmp_path))
        said.add(str(caught.value))
    assert len(said) == 1


@pytest.mark.parametrize("text", ["", "[1]", "null", "{", '{"a": 1, "a": 2}', "[" * 100_000])
def test_what_is_no_json_object(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(PrunelabError, match=r"config\.json") as caught:
        load_model(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_output_switches_have_their_defaults(fields_of: Callable[[str], Change]) -> None:
    for variant, value in (("llama", True), ("gemma2", False), ("qwen2_window", "yes")):
        switches = ("return_dict", "output_attentions", "output_hidden_states", "use_cache", "torchscript")
        changed = config_of({**fields_of(variant), **dict.fromkeys(switches, value)}, "model")
        plain = config_of(fields_of(variant), "model")
        for name in switches:
            assert getattr(changed, name, None) == getattr(plain, name, None)
    fields = fields_of("llava")
    fields["text_config"].update(use_cache=False, output_hidden_states=True)
    inner = config_of(fields, "model").get_text_config()
    assert inner.use_cache
    assert not inner.output_hidden_states


@pytest.mark.parametrize("name", ["attn_implementation", "_attn_implementation"])
@pytest.mark.parametrize("value", ["flash_attention_3", "flex_attention", "kernels-community/flash-attn", {"": "x"}, 3])
def test_an_attention_implementation_that_cannot_be_had(
    name: str, value: Any, fields_of: Callable[[str], Change]
) -> None:
    with pytest.warns(UserWarning, match="requests the attention implementation"):
        config = config_of({**fields_of("llama"), name: value}, "model")
    assert config._attn_implementation is None


def test_fields_that_the_architecture_has_not_change_nothing(fields_of: Callable[[str], Change]) -> None:
    model = tiny_model("llama")
    left = {"sliding_window": 4, "layer_types": ["sliding_attention"] * 4, "final_logit_softcapping": 1.0}
    other = type(model)(config_of({**fields_of("llama"), **left}, "model")).eval()
    other.load_state_dict(model.state_dict())
    request = ScoringRequest(list(range(20)), [3, 5], "a")
    [one], [two] = (Scorer(m, max_length=64).score([request]) for m in (model, other))
    assert one == two


def test_a_good_checkpoint_is_as_it_was(tmp_path: Path) -> None:
    model = tiny_model("qwen2_window")
    model.save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    assert load_model(str(tmp_path), dtype="float32").model.config.to_diff_dict() == model.config.to_diff_dict()


@pytest.mark.parametrize(
    "text",
    [
        "[1]",
        "null",
        "{",
        '{"eos_token_id": "x"}',
        '{"eos_token_id": [1, "a"]}',
        '{"cache_implementation": "none"}',
    ],
)
def test_a_generation_config_that_cannot_be_read(text: str, tmp_path: Path, fields_of: Callable[[str], Change]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(fields_of("llama")))
    (tmp_path / "generation_config.json").write_text(text)
    for read in (load_model, open_streamed, lambda name: load_offloaded(name, memory=1)):
        with pytest.raises(PrunelabError, match=r"generation_config\.json") as caught:
            read(str(tmp_path))
        assert "\n" not in str(caught.value)
