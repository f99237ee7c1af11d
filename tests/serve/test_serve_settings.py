"""Settings: defaults, file, environment and overrides in this order; mistakes are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from depthray.errors import UsageError
from serve import settings


def test_overrides_win_over_environment_over_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("timeout_seconds: 5\nmodel: {max_batch: 2, linger_ms: 3}\nlimits: {pixels: 100}\n")
    environment = {"DEPTHRAY_SERVE_MODEL__MAX_BATCH": "4", "DEPTHRAY_SERVE_LIMITS__PIXELS": "200", "HOME": "/"}
    found = settings.load(file, ["limits.pixels=300"], environment=environment)
    assert (found.timeout_seconds, found.model.batch_wait_timeout_ms) == (5, 3)
    assert (found.model.max_batch, found.limits.pixels) == (4, 300)
    assert settings.parse(found.model_dump(mode="json")) == found


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.max_bach=3", "unknown key 'model.max_bach' (did you mean 'max_batch'?)"),
        ("model_replicas.min=3", "min=3 is more than max=1"),
        ("model.max_batch=0", "model.max_batch=0: "),
        ("timeout_seconds=.nan", "timeout_seconds=nan: "),
        ("default=../x", "default='../x': "),
        ("limits.pixels=many", "limits.pixels='many': "),
        ("nonsense", "'nonsense' is neither a flag nor an override"),
    ],
)
def test_a_wrong_override_is_named(override: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        settings.load(overrides=[override], environment={})
    assert message in str(error.value)


def test_the_old_name_of_a_setting_still_works() -> None:
    assert settings.load(overrides=["model.linger_ms=4"], environment={}).model.batch_wait_timeout_ms == 4
    environment = {"DEPTHRAY_SERVE_MODEL__LINGER_MS": "5"}
    assert settings.load(environment=environment).model.batch_wait_timeout_ms == 5
    with pytest.raises(UsageError, match=r"unknown key 'model\.linger_ms'"):  # both names: which of them counts?
        settings.parse({"model": {"linger_ms": 1, "batch_wait_timeout_ms": 2}})
