"""Names for runs and logged models that were given none."""

from __future__ import annotations

import secrets

_QUALITIES = """
able amber ample bold brave brief bright brisk calm candid clear clever cool crisp curious deft
eager early fair fleet fond frank fresh gentle glad grand hardy honest humble keen kind light
lively loyal lucid mellow merry mild modest neat nimble noble patient plain polite proud quick
quiet rapid ready robust royal serene sharp silent sincere sleek smart smooth solid sound spry
stable steady still sturdy subtle sunny swift tidy vivid warm wise witty
"""
_THINGS = """
alder ant badger beaver birch bison brook cedar cliff cloud cove crane creek crow dale deer dove
dune eagle elk elm falcon fern finch fjord fox gull hare hawk hazel heron hill ibis ivy jay lake
lark linden lynx maple marten meadow moose moss newt oak orca otter owl peak pine plover pond
quail rain raven reef ridge river robin rook seal shore shrew snow sparrow spruce squid stoat
stone stork swan tern thrush tide trout tulip vale vole wave whale willow wren
"""


def random_name() -> str:
    """An adjective, a noun and a number, such as `brisk-otter-417`."""
    words = f"{secrets.choice(_QUALITIES.split())}-{secrets.choice(_THINGS.split())}"
    return f"{words}-{secrets.randbelow(900) + 100}"
