"""One validated configuration: unknown keys are errors, problems are one sentence."""

import pytest

from vesselsdf.config import RunConfig, claim_folder, load_config, parse_config, save_config
from vesselsdf.errors import InputError


def test_a_configuration_survives_its_file(tmp_path):
    config = parse_config({"training": {"steps": 7}, "data": {"window": [-100, 400]}}, "here")
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config


def test_settings_left_out_keep_their_defaults(tmp_path):
    path = tmp_path / "few.yaml"
    path.write_text("network:\n  width: 4\n")
    assert load_config(path) == RunConfig.model_validate({"network": {"width": 4}})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"netwrok": {}}, "unknown setting 'netwrok'"),
        ({"network": {"wdith": 3}}, "unknown setting 'network.wdith'"),
        ({"training": {"steps": 0}}, "training.steps"),
        ({"training": {"patch": 63}}, "multiple of 8"),
        ({"network": {"kappa": 0.5}}, "kappa must exceed"),
        ({"network": {"operator": "median"}}, "network.operator"),
        ({"data": {"synthetic_size": 40}}, "at least training.patch"),
    ],
)
def test_problems_are_named_in_one_sentence(values, words):
    with pytest.raises(InputError, match=words) as caught:
        parse_config(values, "run.yaml")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("run.yaml")


def test_files_that_hold_no_settings_are_refused(tmp_path):
    for text, words in (("- 1\n- 2\n", "holds a list"), ("a: [", "not valid YAML")):
        path = tmp_path / "bad.yaml"
        path.write_text(text)
        with pytest.raises(InputError, match=words):
            load_config(path)
    with pytest.raises(InputError, match="No configuration file"):
        load_config(tmp_path / "absent.yaml")


def test_a_configuration_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        RunConfig().training.steps = 3


def test_a_folder_belongs_to_one_configuration_even_before_its_first_checkpoint(tmp_path):
    config = parse_config({"data": {"modality": "mr"}}, "here")
    claim_folder(tmp_path, config)
    claim_folder(tmp_path, config)
    with pytest.raises(InputError, match=r"data\.modality was mr, now ct"):
        claim_folder(tmp_path, parse_config({"data": {"modality": "ct"}}, "here"))
