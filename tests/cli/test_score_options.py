from __future__ import annotations

import pytest

from sparkscore.cli.scoring_options import reader_options
from sparkscore.errors import ConfigError


def test_a_source_option_is_a_name_and_a_value_that_may_be_empty() -> None:
    texts = ["sep=;", "quote=", "escape==", "nullValue=a=b"]
    assert reader_options(texts) == {
        "sep": ";",
        "quote": "",
        "escape": "=",
        "nullValue": "a=b",
    }


@pytest.mark.parametrize("text", ["header", "=x", ""])
def test_a_source_option_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not of the form KEY=VALUE"):
        reader_options([text])
