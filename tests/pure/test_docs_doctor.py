"""The examples of docs/doctor.md are what doctor prints for those machines."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    monkeypatch.syspath_prepend(str(DOCS))
    import doctor_examples

    yield doctor_examples
    sys.modules.pop("doctor_examples", None)


def test_the_page_is_up_to_date(examples) -> None:  # type: ignore[no-untyped-def]
    """A change of what doctor prints is a change of the page (run: make docs)."""
    assert (DOCS / "doctor.md").read_text(encoding="utf-8") == examples.page(), "run: make docs"


def test_what_a_machine_lacks_is_off_with_its_reason_and_the_fix(examples) -> None:  # type: ignore[no-untyped-def]
    """A missing package, a full /dev/shm and a hidden GPU are told with what to do."""
    from twinrun.cli.doctor import lines_for
    from twinrun.topology.visible import visible

    lacks = (("symmetric", "cuda-core is not installed"), ("ipc", "cuda-core is not installed"))
    told = "\n".join(lines_for(examples.NODE, {}, {"dtype": "bf16"}, lacks))
    assert "symmetric      off: cuda-core is not installed" in told
    assert (
        "to change        pip install 'twinrun[cuda13]'" in told and "nccl           CHOSEN" in told
    )
    hidden = replace(examples.NODE, visible=visible("0,9", examples.NODE.gpus.gpus))
    assert "'9' is none of this machine's 4 GPUs" in "\n".join(
        lines_for(hidden, {}, {"dtype": "bf16"}, ())
    )


def test_a_switch_of_the_users_is_named(examples) -> None:  # type: ignore[no-untyped-def]
    """What the user switched off says so, with the variable."""
    from twinrun.cli.doctor import lines_for

    environ = {"TWINRUN_SYMMETRIC_ALL_REDUCE": "0"}
    told = "\n".join(lines_for(examples.NODE, environ, {"dtype": "bf16"}, ()))
    assert "off: TWINRUN_SYMMETRIC_ALL_REDUCE = 0   environment" in told
    assert "ipc            CHOSEN" in told and "unset the variable that switches it off" in told
