"""How programs end."""

from __future__ import annotations

import pytest

from shared import entry


def test_exit_code_is_what_main_returns() -> None:
    """The program ends with what its `main` returns."""
    with pytest.raises(SystemExit) as ended:
        entry.run(lambda: 3)

    assert ended.value.code == 3


def test_interrupt_is_one_word(capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C ends a program with 130 and one word, wherever it is."""

    def interrupted() -> int:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        entry.run(interrupted)

    assert ended.value.code == 130
    assert capsys.readouterr().err == "stopped\n"
