"""Logging: keys with units, never a secret."""

from __future__ import annotations

import contextlib
import io
import json

import pytest
import structlog

from shared import log


def test_secrets_are_redacted_at_any_depth(capsys: pytest.CaptureFixture[str]) -> None:
    """A key that names a secret is replaced, however deep it lies."""
    log.configure()

    log.get("test").info(
        "request.sent", headers={"ACCESS-SIGN": "abc", "locale": "en"}, api_key="k", n=[{"secret": "x"}]
    )

    line = json.loads(capsys.readouterr().err)
    assert line["headers"] == {"ACCESS-SIGN": "[redacted]", "locale": "en"}
    assert (line["api_key"], line["n"]) == ("[redacted]", [{"secret": "[redacted]"}])
    structlog.reset_defaults()


def test_names_outside_ascii_are_written_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    """A symbol in Chinese is found in the log by its name."""
    log.configure()

    log.get("test").info("order.done", symbol="龙虾USDT")

    assert '"symbol": "龙虾USDT"' in capsys.readouterr().err
    structlog.reset_defaults()


def test_stderr_of_now_is_written_to(capsys: pytest.CaptureFixture[str]) -> None:
    """Who configures the log while stderr is something that is closed later does not break those who log then."""
    with io.StringIO() as closed_later, contextlib.redirect_stderr(closed_later):
        log.configure()
        log.get("first").info("thing.happened")
        assert "thing.happened" in closed_later.getvalue()

    log.get("second").info("thing.followed")

    assert "thing.followed" in capsys.readouterr().err
