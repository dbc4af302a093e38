"""network rules and network repair: the packet filter in words, and what was broken put right. Docker has neither."""

from __future__ import annotations

from tare.engine.engine import Engine
from tare.network.rule_listing import ListedTable as ListedTable


async def list_rules(engine: Engine) -> tuple[ListedTable, ...]:
    """The engine's packet filter as the kernel has it; nothing, if the engine writes none."""
    return engine.network.rules()


async def repair_networks(engine: Engine) -> list[str]:
    """Makes bridges, containers' links and rules anew where somebody took them away; says which it were.

    Open connections go on where their link was left alone. Whoever repairs again finds nothing to do.
    """
    return await engine.network.mend()
